#!/usr/bin/env bash
# BroRL on 64 H100: sbatch slurm/brorl.sh [--set NAME=VALUE ...], from the repository's root. See docs/cluster.md.
#SBATCH --job-name=brorl
#SBATCH --nodes=8
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --exclusive
#SBATCH --mem=0
#SBATCH --time=04:00:00
#SBATCH --signal=B:USR1@900
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.out

source slurm/job.sh || exit 2
: "${SCALE:=h100x64}" "${RUN_DIR:=runs/brorl-$SCALE}"
run_job "$RUN_DIR" python -m megatron_rl train recipes/brorl.py --scale "$SCALE" --directory "$RUN_DIR" "$@"
