#!/bin/sh
# Train, then test the last checkpoint:  sh tool/train.sh <dataset> <net> [SECTION.key value ...]
# On SLURM, the same with sbatch:        sbatch tool/train.sh <dataset> <net> [SECTION.key value ...]
set -eu

if [ $# -lt 2 ]; then
    echo "usage: sh tool/train.sh <dataset> <net> [SECTION.key value ...], as in: sh tool/train.sh ade20k pspnet50" >&2
    exit 2
fi
# sbatch runs a copy of this file from its spool: the project is where sbatch was called.
if [ -f "$(dirname "$0")/train.py" ]; then cd "$(dirname "$0")/.."; else cd "$SLURM_SUBMIT_DIR"; fi
. tool/python.sh

dataset=$1
net=$2
shift 2
config=config/$dataset/${dataset}_$net.yaml
run=exp/$dataset/$net
if [ -f "$config" ]; then mkdir -p "$run/model" "$run/result"; fi

"$PYTHON" tool/train.py --config "$config" "$@"
# An empty model_path is the newest checkpoint: the one just trained, whatever the config names.
"$PYTHON" tool/test.py --config "$config" TEST.model_path '' "$@"
