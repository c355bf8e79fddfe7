#!/bin/sh
# From a bare machine to a trained network: installs, draws the toy dataset, trains, tests, shows.
#   sh tool/quickstart.sh [SECTION.key value ...]
# Needs python3 (with venv), sh and a package index. TOY_TRAIN, TOY_VAL: how many images to draw.
set -eu
cd "$(dirname "$0")/.."
. tool/install.sh
install requirements.txt

run=exp/toy/pspnet18
"$PYTHON" tool/prepare_toy.py --out dataset/toy --train "${TOY_TRAIN:-300}" --val "${TOY_VAL:-40}"
echo "== training (tool/train.py --config config/toy/toy_pspnet18.yaml)"
"$PYTHON" tool/train.py --config config/toy/toy_pspnet18.yaml TRAIN.resume auto "$@"
echo "== testing at several scales (tool/test.py)"
"$PYTHON" tool/test.py --config config/toy/toy_pspnet18.yaml TEST.scales '[0.75, 1.0, 1.25]' "$@"
echo "== demo (tool/demo.py)"
"$PYTHON" tool/demo.py --config=config/toy/toy_pspnet18.yaml --image=figure/demo/toy_street.jpg "$@"
