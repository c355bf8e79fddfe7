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

if [ $# -lt 2 ]; then
    echo "usage: sh tool/train.sh <dataset> <net> [SECTION.key value ...], as in: sh tool/train.sh ade20k pspnet50" >&2
    exit 2
fi
# sbatch runs a copy of this file from its spool: the project is where sbatch was called.
if [ -f "$(dirname "$0")/train.py" ]; then cd "$(dirname "$0")/.."; else cd "$SLURM_SUBMIT_DIR"; fi
if [ ! -f tool/train.py ]; then
    echo "error: no tool/train.py in $PWD: call sbatch in the project's folder" >&2
    exit 2
fi
. tool/python.sh

dataset=$1
net=$2
shift 2
config=config/$dataset/${dataset}_$net.yaml
run=exp/$dataset/$net
if [ -f "$config" ]; then mkdir -p "$run/model" "$run/result"; fi

# In a job of SLURM $log is where its logs begin, else it is empty.
log=
if [ -n "${SLURM_JOB_ID:-}" ] && [ -f "$config" ]; then
    log=$run/model/slurm-$SLURM_JOB_ID
    memory=${SLURM_MEM_PER_NODE:+$SLURM_MEM_PER_NODE MB a node}
    memory=${memory:-${SLURM_MEM_PER_CPU:+$SLURM_MEM_PER_CPU MB a CPU}}
    echo "SLURM job $SLURM_JOB_ID, start $((${SLURM_RESTART_COUNT:-0} + 1)): $SLURM_JOB_NUM_NODES nodes" \
        "($SLURM_JOB_NODELIST), GPUs a node: ${SLURM_GPUS_ON_NODE:-0}, CPUs a node: $SLURM_JOB_CPUS_PER_NODE," \
        "memory: ${memory:-unlimited}, logs: $log-<node>.log"
    # A job that was requeued finds its own checkpoints and predictions.
    if [ "${SLURM_RESTART_COUNT:-0}" -gt 0 ]; then set -- "$@" TRAIN.resume auto TEST.skip_existing True; fi
    # SIGTERM comes to the whole job when others cancel or requeue it; then it is not for this script to do so.
    ended=
    trap 'ended=yes' TERM
fi

# Run a command once per node, where it starts one process per GPU: a log per node, the first one shown here.
# What ends on one node ends on all, but 45 seconds later: --kill-on-bad-exit=1 would cut short
# who is still saving, or about to say the reason. Not bound, a task has all CPUs that the job got.
on_every_node() {
    : >>"$log-0.log"
    shown=$(wc -l <"$log-0.log")
    srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 \
        --overlap --cpu-bind=none --kill-on-bad-exit=0 --wait=45 \
        --output="$log-%n.log" --open-mode=append "$@" &
    step=$!
    (trap '' TERM && exec tail -n "+$((shown + 1))" -f --pid="$step" "$log-0.log") || :
    wait "$step"
}

# Run a tool in this place or on every node; then requeue a job that stopped and saved, explain one that failed.
run_tool() {
    if [ -z "$log" ]; then
        "$PYTHON" "$@"
        return
    fi
    on_every_node "$PYTHON" "$@" && return
    code=$?
    if [ "$code" = 75 ] && [ -n "$ended" ]; then
        echo "job $SLURM_JOB_ID stopped and saved, as it was cancelled or requeued"
    elif [ "$code" = 75 ] && scontrol requeue "$SLURM_JOB_ID"; then
        echo "job $SLURM_JOB_ID stopped and saved; it is requeued and will go on"
    elif [ "$code" = 75 ]; then
        echo "job $SLURM_JOB_ID stopped and saved; the same command with TRAIN.resume auto TEST.skip_existing True goes on"
    else
        for other in "$log"-[1-9]*.log; do
            if [ -f "$other" ]; then echo "== the end of $other" && tail -n 15 "$other"; fi
        done
        echo "error: $1 ended with exit code $code; the logs are $log-*.log"
    fi >&2
    exit "$code"
}

run_tool tool/train.py --config "$config" "$@"
# An empty model_path is the newest checkpoint: the one just trained, whatever the config names.
run_tool tool/test.py --config "$config" TEST.model_path '' "$@"
