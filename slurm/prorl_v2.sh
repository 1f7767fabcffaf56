#!/usr/bin/env bash
# ProRL v2 on 32 H100: sbatch slurm/prorl_v2.sh [--set NAME=VALUE ...], from the repository's root. See docs/cluster.md.
#SBATCH --job-name=prorl_v2
#SBATCH --nodes=4
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
: "${SCALE:=h100x32}" "${RUN_DIR:=runs/prorl_v2-$SCALE}"
run_job "$RUN_DIR" python -m megatron_rl train recipes/prorl_v2.py --scale "$SCALE" --directory "$RUN_DIR" "$@"
