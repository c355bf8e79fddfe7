#!/bin/sh
# Train, then test the last checkpoint:  sh tool/train.sh <dataset> <net> [SECTION.key value ...]
# On SLURM, on as many nodes as wanted:  sbatch -N 2 --gres=gpu:8 tool/train.sh <dataset> <net> [SECTION.key value ...]
#SBATCH --job-name=semseg
#SBATCH --output=slurm-%j.out
#SBATCH --open-mode=append
#SBATCH --requeue
# Two minutes before the time limit the training (not this script) gets SIGUSR1, saves and exits with 75.
#SBATCH --signal=USR1@120
set -eu

trap 'exit 75' TERM HUP USR1 # until tool/python.sh knows better

if [ $# -lt 2 ]; then
    echo "usage: sh tool/train.sh <dataset> <net> [SECTION.key value ...], as in: sh tool/train.sh ade20k pspnet50" >&2
    exit 2
fi
# sbatch runs a copy of this file from its spool: the project is where sbatch was called.
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
# A checkout may be read-only, with TRAIN.save_path elsewhere.
if [ -f "$config" ]; then mkdir -p "$run/model" "$run/result" 2>/dev/null || run=; fi

# In a job of SLURM $log is where its logs begin, else it is empty. Inside a step (srun --pty bash) it is for the
# user to say what to use.
log=
if [ -n "${SLURM_JOB_ID:-}" ] && [ -n "${SLURM_JOB_NUM_NODES:-}" ] && [ -z "${SLURM_STEP_ID:-}" ] && [ -f "$config" ]; then
    log=${run:+$run/model/}slurm-$SLURM_JOB_ID
    memory=${SLURM_MEM_PER_NODE:+$SLURM_MEM_PER_NODE MB a node}
    memory=${memory:-${SLURM_MEM_PER_CPU:+$SLURM_MEM_PER_CPU MB a CPU}}
    echo "SLURM job $SLURM_JOB_ID, start $((${SLURM_RESTART_COUNT:-0} + 1)): $SLURM_JOB_NUM_NODES nodes" \
        "(${SLURM_JOB_NODELIST:-unknown}), GPUs a node: ${SLURM_GPUS_ON_NODE:-0}, CPUs a node:" \
        "${SLURM_JOB_CPUS_PER_NODE:-unknown}, memory: ${memory:-unlimited}, logs: $log-<node>.log"
    # SIGTERM comes to the whole job when others cancel or requeue it; then it is not for this script to do so.
    ended=
    trap 'ended=yes' TERM
    trap 'kill -s USR1 "$child" 2>/dev/null || :' HUP USR1
    # A job that was requeued finds its own checkpoints and predictions.
    if [ "${SLURM_RESTART_COUNT:-0}" -gt 0 ]; then set -- "$@" TRAIN.resume auto TEST.skip_existing True; fi
fi

# Run a command once per node, where it starts one process per GPU: a log per node, the first one shown here.
# What ends on one node ends on all, but 45 seconds later: --kill-on-bad-exit=1 would cut short
# who is still saving, or about to say the reason. Not bound, a task has all CPUs that the job got.
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
    sleep 1 # for the last lines
    kill -s KILL "$tail"
    return "$code"
}

# Run a tool in this place or on every node; then requeue a job that stopped and saved, explain one that failed.
run_tool() {
    if [ -z "$log" ]; then
        run "$PYTHON" "$@" || exit
        return
    fi
    on_every_node "$PYTHON" "$@" && return
    code=$?
    if [ "$code" = 75 ] && [ -n "$ended" ]; then
        echo "job $SLURM_JOB_ID stopped and saved, as it was cancelled or requeued"
    elif [ "$code" = 75 ] && scontrol requeue "$SLURM_JOB_ID"; then
        echo "job $SLURM_JOB_ID stopped and saved; it is requeued and will resume"
    elif [ "$code" = 75 ]; then
        echo "job $SLURM_JOB_ID stopped and saved; resume with the same command and TRAIN.resume auto TEST.skip_existing True"
    else
        for other in "$log"-[1-9]*.log; do
            if [ -f "$other" ]; then echo "== the end of $other" && tail -n 15 "$other"; fi
        done
        echo "error: $1 ended with exit code $code; the logs are $log-*.log"
    fi >&2
    exit "$code"
}

run_tool "$root/tool/train.py" --config "$config" "$@"
# An empty model_path is the newest checkpoint: the one just trained, whatever the config names.
run_tool "$root/tool/test.py" --config "$config" TEST.model_path '' "$@"
