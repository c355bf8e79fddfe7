#!/bin/sh
# Test a trained network:  sh tool/test.sh <dataset> <net> [SECTION.key value ...]
set -eu
trap 'exit 75' TERM HUP USR1 # same exit code as the tool

if [ $# -lt 2 ]; then
    echo "usage: sh tool/test.sh <dataset> <net> [SECTION.key value ...], as in: sh tool/test.sh ade20k pspnet50" >&2
    exit 2
fi
root=$(dirname "$(dirname "$(readlink -f "$0")")")
. "$root/tool/python.sh"

dataset=$1
net=$2
shift 2
exec "$PYTHON" "$root/tool/test.py" --config "$root/config/$dataset/${dataset}_$net.yaml" "$@"
