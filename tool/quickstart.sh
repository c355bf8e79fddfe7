#!/bin/sh
# From a bare machine to a trained network: installs, draws the toy dataset, trains, tests, shows.
#   sh tool/quickstart.sh [SECTION.key value ...]
# Needs python3 (with venv), sh and a package index. TOY_TRAIN, TOY_VAL: how many images to draw.
# Interrupted, the same command continues.
set -eu
cd "$(dirname "$0")/.."
. tool/install.sh
install requirements.txt

config=config/toy/toy_pspnet18.yaml
run "$PYTHON" tool/prepare_toy.py --out dataset/toy --train "${TOY_TRAIN:-300}" --val "${TOY_VAL:-40}"
echo "== training (tool/train.py --config $config)"
run "$PYTHON" tool/train.py --config "$config" TRAIN.resume auto "$@"
echo "== testing at several scales (tool/test.py)"
run "$PYTHON" tool/test.py --config "$config" TEST.scales '[0.75, 1.0, 1.25]' "$@"
echo "== demo (tool/demo.py)"
exec "$PYTHON" tool/demo.py --config="$config" --image=figure/demo/toy_street.jpg "$@"
