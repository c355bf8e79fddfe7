#!/bin/sh
# Train, then test the last checkpoint:  sh tool/train.sh <dataset> <net> [SECTION.key value ...]
# On SLURM, on as many nodes as wanted:  sbatch -N 2 --gres=gpu:8 tool/train.sh <dataset> <net> [SECTION.key value ...]
#SBATCH --job-name=semseg
#SBATCH --output=slurm-%j.out
#SBATCH --open-mode=append
#SBATCH --requeue
# Two minutes before the time limit SLURM sends SIGUSR1 to the training, which saves and exits with 75.
#SBATCH --signal=USR1@120
set -eu

trap 'exit 75' TERM HUP USR1 # replaced by tool/python.sh

if [ $# -lt 2 ]; then
    echo "usage: sh tool/train.sh <dataset> <net> [SECTION.key value ...], as in: sh tool/train.sh ade20k pspnet50" >&2
    exit 2
fi
# sbatch runs a copy of this file from its spool folder, so the project is where sbatch was called.
self=$(readlink -f "$0")
if [ -f "$(dirname "$self")/train.py" ]; then root=$(dirname "$(dirname "$self")"); else root=${SLURM_SUBMIT_DIR:-$PWD}; fi
if [ ! -f "$root/tool/train.py" ]; then
    echo "error: no tool/train.py in $root: call sbatch in the project's folder" >&2
    exit 2
fi
. "$root/tool/python.sh"

dataset=$1
net=$2
shift 2
config=$root/config/$dataset/${dataset}_$net.yaml
run=$root/exp/$dataset/$net
# The checkout may be read-only, with TRAIN.save_path elsewhere.
if [ -f "$config" ]; then mkdir -p "$run/model" "$run/result" 2>/dev/null || run=; fi

# Prefix of the log files in a SLURM batch job, else empty. Inside a step (srun --pty bash) the script runs as outside
# SLURM.
log=
if [ -n "${SLURM_JOB_ID:-}" ] && [ -n "${SLURM_JOB_NUM_NODES:-}" ] && [ -z "${SLURM_STEP_ID:-}" ] && [ -f "$config" ]; then
    log=${run:+$run/model/}slurm-$SLURM_JOB_ID
    memory=${SLURM_MEM_PER_NODE:+$SLURM_MEM_PER_NODE MB a node}
    memory=${memory:-${SLURM_MEM_PER_CPU:+$SLURM_MEM_PER_CPU MB a CPU}}
    echo "SLURM job $SLURM_JOB_ID, start $((${SLURM_RESTART_COUNT:-0} + 1)): $SLURM_JOB_NUM_NODES nodes" \
        "(${SLURM_JOB_NODELIST:-unknown}), GPUs a node: ${SLURM_GPUS_ON_NODE:-0}, CPUs a node:" \
        "${SLURM_JOB_CPUS_PER_NODE:-unknown}, memory: ${memory:-unlimited}, logs: $log-<node>.log"
    if [ "${SLURM_GPUS_ON_NODE:-0}" = 0 ]; then
        echo "warning: this job has no GPUs and runs on CPUs: to get some, sbatch --gres=gpu:8 tool/train.sh $dataset $net" >&2
    fi
    # SIGTERM means that the job is being cancelled or requeued from outside: do not requeue it again.
    ended=
    trap 'ended=yes' TERM
    trap 'kill -s USR1 "$child" 2>/dev/null || :' HUP USR1
    # A requeued job continues from its own checkpoints, by itself, and predictions.
    if [ "${SLURM_RESTART_COUNT:-0}" -gt 0 ]; then set -- "$@" TEST.skip_existing True; fi
fi

# Run a command once per node, with one log per node; the first node's log is also shown here.
# When it exits on one node, srun stops the others after 45 seconds: --kill-on-bad-exit=1 would kill
# them while they save or report the reason. --cpu-bind=none gives the task all CPUs of the job.
on_every_node() {
    : >>"$log-0.log"
    shown=$(wc -l <"$log-0.log")
    (trap '' TERM HUP USR1 && exec tail -n "+$((shown + 1))" -f "$log-0.log") &
    tail=$!
    srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 \
        --overlap --cpu-bind=none --kill-on-bad-exit=0 --wait=45 \
        --output="$log-%n.log" --open-mode=append "$@" &
    code=0
    finish || code=$?
    sleep 1 # let tail print the last lines
    kill -s KILL "$tail"
    return "$code"
}

# Run a tool here or on every node; requeue the job if it stopped and saved, show the logs if it failed.
run_tool() {
    if [ -z "$log" ]; then
        run "$PYTHON" "$@" || exit
        return
    fi
    on_every_node "$PYTHON" "$@" && return
    code=$?
    if [ "$code" = 75 ] && [ -n "$ended" ]; then
        echo "job $SLURM_JOB_ID stopped and saved because it was cancelled or requeued"
    elif [ "$code" = 75 ] && scontrol requeue "$SLURM_JOB_ID"; then
        echo "job $SLURM_JOB_ID stopped and saved; it is requeued and will resume"
    elif [ "$code" = 75 ]; then
        echo "job $SLURM_JOB_ID stopped and saved; resume with the same command and TRAIN.resume auto TEST.skip_existing True"
    else
        for other in "$log"-[1-9]*.log; do
            if [ -f "$other" ]; then echo "== last lines of $other" && tail -n 15 "$other"; fi
        done
        echo "error: $1 failed with exit code $code; see the logs $log-*.log"
    fi >&2
    exit "$code"
}

run_tool "$root/tool/train.py" --config "$config" "$@"
# With an empty model_path the newest checkpoint is tested: the one just trained.
run_tool "$root/tool/test.py" --config "$config" TEST.model_path '' "$@"
