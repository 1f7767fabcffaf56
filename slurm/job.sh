# What the job scripts share: one attempt of a run, its logs, and what follows its end. Sourced by bash, never run.
#
# A run is one directory and as many attempts as it takes. The training command says by its exit code what is next:
#   0    the run is done                          the file DONE is written
#   85   it stopped in good order, to go on later the job is requeued
#   2    what was asked for cannot be             the file FAILED is written, with the reason
#   any  something broke                          the job is requeued; FAILED after three times in a row from the same
#                                                 checkpoint
# A job that Slurm ends (scancel, preemption, a lost node) is left to Slurm. A folder that holds something else than a
# run, or that another job is at work in, is left as it is.
# Each attempt has a folder RUN_DIR/logs/attempt_N: task_K.log with the output of task K, `checkpoint` (the newest one
# at its start), `waves` (the finished ones then) and `ending` (the exit code, `stuck` where 85 came without progress,
# `refused`, `slurm` or `gave_up`; missing where a node lost its power). logs/latest leads to the newest. The job's own
# output has a line for each step. The file `job` has the number of the job that is at work, and the folder's inode.

{ set +vx; } 2>/dev/null # NeMo-Run's scripts trace every line
readonly requeue_code=85 user_error=2 max_failures=3
# After the notice of --signal. What is still running then is ended, so that it can be requeued before the time limit.
readonly grace_seconds=${GRACE_SECONDS:-840}
readonly settle_seconds=${SETTLE_SECONDS:-5}
# Of a cancelled job, whose ranks are saving: Slurm's KillWait is 30 s, an epilogue comes after it.
readonly handover_seconds=${HANDOVER_SECONDS:-120}

if [[ -e ${BASH_SOURCE[0]%/*}/site.env ]]; then
    # shellcheck source=/dev/null
    source "${BASH_SOURCE[0]%/*}/site.env"
fi
export PYTHONUNBUFFERED=1 PYTHONFAULTHANDLER=1
# The core of a rank that aborts, as NCCL's watchdog has it do, is as large as its memory; Python writes its stacks.
ulimit -Sc 0
# Of `sbatch --export=NAMES`, or a site's SBATCH_EXPORT: srun would pass on no other, and lose what is exported here.
unset SLURM_EXPORT_ENV

# Whether a path of the container leads to the host: one of its mounts, or below one.
is_mounted() {
    local mount mounts
    IFS=, read -ra mounts <<<"${CONTAINER_MOUNTS:-}"
    for mount in "${mounts[@]}"; do
        [[ $mount == *:* ]] || mount=$mount:$mount
        mount=${mount#*:} mount=${mount%%:*}
        [[ $1/ != "${mount%/}"/* ]] || return 0
    done
    return 1
}

# A folder of the node alone, such as a site gives each job, is no folder of the container: what is written to it there
# would go to memory, of which Apptainer has 64 MB.
if [[ -n ${CONTAINER_IMAGE:-} ]] && ! is_mounted "${TMPDIR:-/tmp}"; then
    export TMPDIR=/tmp
fi
# What vLLM, Triton, FlashInfer and CUDA compile, on the node's own disk: a container has no home to keep it in.
compiled=${TMPDIR:-/tmp}/megatron-rl-$UID
export VLLM_CACHE_ROOT=${VLLM_CACHE_ROOT:-$compiled/vllm} TRITON_CACHE_DIR=${TRITON_CACHE_DIR:-$compiled/triton}
export TORCHINDUCTOR_CACHE_DIR=${TORCHINDUCTOR_CACHE_DIR:-$compiled/inductor}
export FLASHINFER_WORKSPACE_BASE=${FLASHINFER_WORKSPACE_BASE:-$compiled/flashinfer}
export CUDA_CACHE_PATH=${CUDA_CACHE_PATH:-$compiled/cuda}

say() { echo "$(date '+%F %T') job ${SLURM_JOB_ID:-none}: $*"; }

# Runs the training command, with the run directory as its first argument, as one step of the job: a task per GPU.
run_job() {
    local words=("${@:2}") i
    begin_attempt "$1"
    # The folder itself: a link that leads to it is not in the container, where another folder would be made instead.
    for i in "${!words[@]}"; do
        [[ -z ${CONTAINER_IMAGE:-} || ${words[i]} != "$1" ]] || words[i]=$run_dir
    done
    run_step "${words[@]}"
    exit $?
}

# Makes the attempt's folder, unless the run is over, and arranges for end_attempt.
begin_attempt() {
    if [[ -z ${SLURM_JOB_ID:-} ]]; then
        echo "error: $0: is no job of Slurm's here, for SLURM_JOB_ID is not set; submit with sbatch" >&2
        exit "$user_error"
    fi
    run_dir=$(realpath -m "$1")
    if [[ -e $run_dir/DONE ]]; then
        say "$run_dir is done; nothing to do"
        exit 0
    fi
    if [[ -n ${CONTAINER_IMAGE:-} && $PWD$run_dir == *[,:]* ]]; then
        say "error: directory $run_dir, in $PWD: a container mounts no path with a comma or a colon; name another with$(
        ) RUN_DIR, or move the checkout"
        exit "$user_error"
    fi
    local others why
    others=$(strangers "$run_dir" | head -n 3 | paste -sd, | sed 's/,/, /g')
    if [[ -n $others ]]; then
        say "error: directory $run_dir: holds $others, and not a run; a run begins in a new or empty folder, or goes$(
        ) on in its own; name another with RUN_DIR"
        exit "$user_error"
    fi
    if [[ -e $run_dir/FAILED && $(last_ending) == refused ]]; then
        rm -f "$run_dir/FAILED" # what was asked for may be another thing now
    fi
    if [[ -e $run_dir/FAILED ]]; then
        say "$run_dir was given up: $(<"$run_dir/FAILED"); remove that file to go on"
        exit 1
    fi
    wait_for_other_job
    why=$({ mkdir -p "$run_dir/logs" && note_job; } 2>&1) || cannot_write "$why"
    attempt_number=0
    until why=$(mkdir "$run_dir/logs/attempt_$attempt_number" 2>&1); do
        [[ -e $run_dir/logs/attempt_$attempt_number ]] || cannot_write "$why"
        ((attempt_number += 1))
    done
    attempt=$run_dir/logs/attempt_$attempt_number
    ln -sfn "attempt_$attempt_number" "$run_dir/logs/latest"
    newest_checkpoint >"$attempt/checkpoint"
    finished_waves >"$attempt/waves"
    ended_by_slurm=
    trap 'ended_by_slurm=yes; exit 143' TERM
    trap 'end_attempt $?' EXIT
    watch_limit
    say "attempt $attempt_number from $(<"$attempt/checkpoint") on $SLURM_JOB_NODELIST, logs in $attempt"
    # Attempts that left no ending: a node that took everything with it.
    if (($(failures_in_a_row $((attempt_number - 1))) >= max_failures)); then
        give_up gave_up "$max_failures attempts in a row from $(newest_checkpoint) failed or vanished$(last_step)"
    fi
}

# Prints what lies in a folder that is no run's, or evaluation's, and that no start of one puts there; nothing of a
# folder that is one's, or new. As megatron_rl/runtime/contents.py does, which looks again.
strangers() (
    cd "$1" 2>/dev/null && shopt -s nullglob dotglob || exit 0
    marks=(checkpoints/step_??????/manifest.json policies/*/policy.json)
    [[ ! -e run.json && ! -e ledger.jsonl ]] && ((${#marks[@]} == 0)) || exit 0
    for name in * {checkpoints,logs,rollouts}/*; do
        case $name in
            */.nfs* | */lost+found | */.snapshot | */.DS_Store) ;;
            checkpoints/step_??????.partial | checkpoints/step_??????.removed | rollouts/step_??????) ;;
            logs/attempt_* | logs/latest | logs/progress | logs/failure_rank*.txt | logs/stall_rank*.txt) ;;
            logs/track_*.log | logs/*.out | logs/*.err) ;;
            */*) echo "$name" ;;
            checkpoints | logs | rollouts | spans | evaluation | problems | policies | models)
                [[ -d $name ]] || echo "$name"
                ;;
            submissions.jsonl | changes_*.diff | .lock | job | DONE | FAILED | heartbeat.* | .*.partial) ;;
            *.log | *.out | *.err | .nfs* | lost+found | .snapshot | .DS_Store) ;;
            *) echo "$name" ;;
        esac
    done
)

cannot_write() {
    say "error: directory $run_dir: cannot be written (${1##*: }); mend that and submit again, or choose another with$(
    ) RUN_DIR"
    exit 1
}

# Returns once no other job is at work in the folder: at once, or when one that was cancelled has ended. Ends this one
# where another goes on.
wait_for_other_job() {
    local other inode until=$((SECONDS + handover_seconds)) has_told=
    read -r other inode 2>/dev/null <"$run_dir/job" || return 0
    # What a copy of a folder says is of the job in the one that was copied.
    [[ $other != "$SLURM_JOB_ID" && ${inode:-$(inode_of "$run_dir")} == "$(inode_of "$run_dir")" ]] || return 0
    while :; do
        case $(state_of "$other") in
            RUNNING | SUSPENDED)
                say "job $other is at work in $run_dir; wait for its end, or choose another with RUN_DIR"
                exit 1
                ;;
            COMPLETING)
                ((SECONDS < until)) || return 0 # the lock decides
                [[ -n $has_told ]] || say "job $other is ending in $run_dir; waiting for that"
                has_told=yes
                sleep "$settle_seconds"
                ;;
            *) return 0 ;;
        esac
    done
}

# Prints a job's state, nothing where it is over. Of an array's number squeue shows all tasks.
state_of() { squeue -h -o '%A %T' -j "$1" 2>/dev/null | sed -n "s/^$1 //p"; }

inode_of() { stat -c %i "$1"; }

note_job() { echo "$SLURM_JOB_ID $(inode_of "$run_dir")" >"$run_dir/job"; }

# Prints the job as scontrol takes it: of an array this task alone, for its last one has the array's number.
this_job() {
    [[ -n ${SLURM_ARRAY_JOB_ID:-} ]] && echo "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID" || echo "$SLURM_JOB_ID"
}

# Runs a command as a step, in the container where there is one; returns its exit code.
run_step() {
    local options=() code is_interrupted mounts
    if [[ -n ${CONTAINER_IMAGE:-} ]]; then
        mounts=$PWD:$PWD,$run_dir:$run_dir${CONTAINER_MOUNTS:+,$CONTAINER_MOUNTS}
        if [[ $CONTAINER_IMAGE == *.sif ]]; then
            set -- apptainer exec --nv --writable-tmpfs --no-home --bind "$mounts" --pwd "$PWD" "$CONTAINER_IMAGE" "$@"
        else
            options=(--container-image="$CONTAINER_IMAGE" --container-mounts="$mounts" --container-workdir="$PWD"
                --container-writable --no-container-mount-home)
        fi
    fi
    # --kill-on-bad-exit would turn 85 into the signal that the slower tasks are killed with.
    # --cpu-bind: Slurm may else give each task a single core.
    srun --output="$attempt/task_%t.log" --kill-on-bad-exit=0 --wait=60 --cpu-bind=none "${options[@]}" "$@" &
    step=$!
    show_steps &
    shown=$!
    trap 'is_interrupted=yes; pass_on_notice' USR1
    while is_interrupted=; wait "$step"; code=$?; [[ -n $is_interrupted ]]; do :; done
    trap '' USR1
    wait "$shown"
    return "$code"
}

# Prints what the first task says of each step, and its warnings, until the step of the job has ended.
show_steps() {
    tail -n +1 -s 0.5 -F --pid="$step" "$attempt/task_0.log" 2>/dev/null |
        grep --line-buffered -E '^[0-9:]{8} (INFO step|WARNING|ERROR) '
}

# Tells the step that its time is nearly up, and ends it where it does not heed that.
pass_on_notice() {
    local seconds
    seconds=$(grace_left)
    say "time is nearly up: the training is asked to stop"
    kill -USR1 "$step"
    (
        sleep "$seconds"
        say "still running $seconds s after the notice: ended"
        kill -TERM "$step"
    ) &
}

# Ends the steps half a minute before Slurm's limit, where they have heeded no notice or had none: a job that Slurm has
# ended for its time is not requeued. Python writes down where it stood.
watch_limit() {
    local left=$((${SLURM_JOB_END_TIME:-0} - $(date +%s) - 30))
    ((left >= 0)) || return 0
    (
        trap 'kill $!; exit' TERM
        sleep "$left" &
        wait $! && [[ ! -e $attempt/ending ]] && scancel --signal=ABRT "$(this_job)"
    ) &>/dev/null &
    watch=$!
}

# Prints how long the training has from now on: less than grace_seconds where Slurm's limit is nearer than that.
grace_left() {
    local left=$((${SLURM_JOB_END_TIME:-0} - $(date +%s) - 60)) # a minute, for the last words and the requeue
    [[ -n ${SLURM_JOB_END_TIME:-} && $left -lt $grace_seconds ]] || left=$grace_seconds
    echo $((left > 0 ? left : 1))
}

# Decides what follows from an exit code; runs when the script exits.
end_attempt() {
    local code=$1 failures
    trap - EXIT
    set +e
    [[ -z ${watch:-} ]] || kill "$watch" 2>/dev/null # a requeued job has the same number, and a limit of its own
    # Slurm ends the steps before the script: what looks like a failure may be the end of the job.
    trap 'ended_by_slurm=yes' TERM
    [[ ! -e $attempt/ending ]] || exit 1 # it was given up at its start
    [[ $code == 0 || -n $ended_by_slurm ]] || sleep "$settle_seconds"
    if [[ -n $ended_by_slurm ]]; then
        echo slurm >"$attempt/ending"
        say "ended by Slurm"
        exit 143
    fi
    echo "$code" >"$attempt/ending"
    [[ $code != "$requeue_code" ]] || got_further || echo stuck >"$attempt/ending"
    case $code in
        0)
            say "done"
            rm -f "$run_dir/FAILED" # of another job that was refused meanwhile
            touch "$run_dir/DONE"
            exit 0
            ;;
        "$requeue_code")
            got_further && requeue "stopped in good order$(last_step)"
            ;;
        "$user_error")
            refuse "$(last_error)"
            ;;
    esac
    failures=$(failures_in_a_row "$attempt_number")
    if ((failures >= max_failures)); then
        give_up gave_up "$failures attempts in a row from $(newest_checkpoint) failed$(last_step), the last with$(
        ) exit code $code$(reason_of "$code")"
    fi
    if [[ $code == "$requeue_code" ]]; then
        requeue "stopped in good order$(last_step) without getting further, $failures of $max_failures times in a row"
    fi
    show_end_of_log
    requeue "failed with exit code $code$(last_step), $failures of $max_failures times in a row from $(newest_checkpoint)"
}

# Puts the job back into the queue, under its own number; Slurm ends this script with that.
requeue() {
    local answer tries
    say "$1"
    for ((tries = 0; tries < 60; tries++)); do
        [[ ${REQUEUE:-yes} == yes ]] || break
        # Slurm ends this script with that, and perhaps scontrol before it has an answer.
        answer=$(scontrol requeue "$(this_job)" 2>&1) && sleep 60
        sleep 1
        [[ -z $ended_by_slurm ]] || exit "$code"
        [[ $answer =~ [Cc]ontact|[Tt]imed\ out|[Cc]onnect|[Cc]ommunication ]] || break
        sleep "$settle_seconds" # a controller that is started anew answers later
    done
    say "not requeued${answer:+ (${answer//$'\n'/; })}; submit again to go on"
    exit "$code"
}

# Ends the run for now, for a mistake of the user's; a run that others are at work in goes on.
refuse() {
    [[ $1 == *"another run is using it"* ]] || give_up refused "$1"
    echo refused >"$attempt/ending"
    say "$1"
    exit 1
}

# Ends the run for now, by an ending and the reason.
give_up() {
    echo "$1" >"$attempt/ending"
    echo "$2" >"$run_dir/FAILED"
    show_end_of_log
    say "FAILED: $2"
    exit 1
}

# Prints what the last attempt's `ending` says.
last_ending() {
    local number=-1
    while [[ -e $run_dir/logs/attempt_$((number + 1)) ]]; do ((number += 1)); done
    cat "$run_dir/logs/attempt_$number/ending" 2>/dev/null
}

# Passes on lines that tell of more than a lost connection, which all ranks do once one has gone; all where none does.
causes() {
    local lines
    lines=$(cat)
    grep -vE 'NCCL|[Gg]loo|[Cc]onnection|[Pp]eer|[Tt]imed out' <<<"$lines" || echo "$lines"
}

# Prints the last `error:` line of the attempt, as the training wrote it. NeMo-Run puts the output elsewhere.
last_error() {
    local logs=("$attempt"/task_*.log) line
    if [[ ! -e ${logs[0]} ]]; then
        line=$(scontrol show job "$(this_job)" 2>/dev/null | sed -nE 's/^ *StdOut=//p')
        logs=("$(dirname "$line")"/log-*_"${SLURM_JOB_ID}_${SLURM_RESTART_COUNT:-0}".out)
    fi
    line=$(sed -nE 's/.*(error: .*)/\1/p' "${logs[@]}" 2>/dev/null | causes | tail -n 1)
    echo "${line:-it left no line \`error:\`; see $attempt}"
}

# Prints why an attempt with this exit code got nowhere, for a message.
reason_of() {
    if [[ $1 == "$requeue_code" ]]; then
        echo ": its time was up before a checkpoint or a wave was finished; ask for more time (sbatch --time), or set$(
        ) less run.preemption_lead_seconds"
    else
        echo ": $(last_error)"
    fi
}

# Prints the waves of samples that are on disk, of a run or an evaluation.
finished_waves() {
    compgen -G "$run_dir/rollouts/step_*/*.wave" || :
    compgen -G "$run_dir/policies/*/*/*/wave_*.jsonl" || :
}

# Whether the attempt left a checkpoint or a wave that was not there before.
got_further() {
    [[ $(newest_checkpoint) != "$(<"$attempt/checkpoint")" ]] || finished_waves | grep -qvxFf "$attempt/waves"
}

# Prints the end of the first task's log, and what the first of the others said that had errors.
show_end_of_log() {
    [[ -e $attempt/task_0.log ]] || return 0
    tail -n 20 "$attempt/task_0.log"
    (cd "$attempt" && grep -m 1 -E '^([0-9:]{8} rank [0-9]+ ERROR|error:) ' task_[1-9]*.log | causes | head -n 3)
}

# Prints the name of the newest checkpoint.
newest_checkpoint() {
    local found=("$run_dir"/checkpoints/step_??????)
    [[ -d ${found[-1]} ]] && basename "${found[-1]}" || echo "the start"
}

# Prints the last step that was recorded, for a message.
last_step() {
    local step
    step=$(tail -n 1 "$run_dir/metrics.jsonl" 2>/dev/null | sed -nE 's/.*"step": ?([0-9]+).*/\1/p')
    [[ -z $step ]] || echo " after step $step"
}

# Prints how many attempts up to this number failed in a row from what is now the newest checkpoint. Those that Slurm
# ended say nothing; one that stopped in good order and got further, or that the run was given up at, ends the row.
failures_in_a_row() {
    local number count=0 folder ending checkpoint
    checkpoint=$(newest_checkpoint)
    for ((number = $1; number >= 0; number--)); do
        folder=$run_dir/logs/attempt_$number
        ending=$(cat "$folder/ending" 2>/dev/null)
        [[ $(cat "$folder/checkpoint" 2>/dev/null) == "$checkpoint" ]] || break
        [[ $ending != "$requeue_code" && $ending != gave_up && $ending != refused ]] || break
        [[ $ending == slurm ]] || ((count += 1))
    done
    echo "$count"
}
