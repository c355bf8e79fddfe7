#!/bin/sh
# Test a trained network:  sh tool/test.sh <dataset> <net> [SECTION.key value ...]
set -eu

if [ $# -lt 2 ]; then
    echo "usage: sh tool/test.sh <dataset> <net> [SECTION.key value ...], as in: sh tool/test.sh ade20k pspnet50" >&2
    exit 2
fi
cd "$(dirname "$0")/.."
. tool/python.sh

dataset=$1
net=$2
shift 2
exec "$PYTHON" tool/test.py --config "config/$dataset/${dataset}_$net.yaml" "$@"
