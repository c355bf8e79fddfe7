#!/bin/sh
# From a bare machine to a trained network: install, draw the toy dataset, train, test, run the demo.
#   sh tool/quickstart.sh [SECTION.key value ...]
# Needs python3 (with venv), sh and a package index. TOY_TRAIN, TOY_VAL: number of images to draw.
# If interrupted, the same command continues.
set -eu
cd "$(dirname "$0")/.."
. tool/install.sh
install requirements.txt

config=config/toy/toy_pspnet18.yaml
run=exp/toy/pspnet18
echo "== this takes about 4 minutes on 2 cores with bf16, 8 without, mostly for training"
run "$PYTHON" tool/prepare_toy.py --out dataset/toy --train "${TOY_TRAIN:-300}" --val "${TOY_VAL:-40}"

# A CPU without bf16 is about three times slower: 6 trial steps tell how many epochs fit into 6 minutes.
epochs=$(sed -n 's/^  epochs: //p' "$config")
if [ ! -f "$run/epochs" ] && ! grep -q bf16 /proc/cpuinfo 2>/dev/null && [ "${TOY_TRAIN:-300}" -ge 24 ]; then
    echo "== measuring 6 steps of training"
    trial=$run/trial
    rm -rf "$trial" # of an interrupted start
    mkdir -p "$trial"
    head -n 24 dataset/toy/list/train.txt >"$trial/list.txt"
    run "$PYTHON" tool/train.py --config "$config" DATA.train_list "$trial/list.txt" TRAIN.epochs 1 TRAIN.resume '' \
        TRAIN.save_path "$trial/model" >/dev/null
    "$PYTHON" -c 'import json, sys
speed = json.loads(open(sys.argv[1]).readlines()[-1])["images_per_second"]
print(max(3, min(int(sys.argv[2]), int(360 * speed / int(sys.argv[3])))))' \
        "$trial/model/metrics.jsonl" "$epochs" "${TOY_TRAIN:-300}" >"$trial/epochs"
    mv "$trial/epochs" "$run/epochs"
fi
if [ -f "$run/epochs" ]; then epochs=$(cat "$run/epochs"); fi

echo "== training $epochs epochs (tool/train.py --config $config)"
run "$PYTHON" tool/train.py --config "$config" TRAIN.epochs "$epochs" TRAIN.resume auto "$@"
echo "== testing at several scales (tool/test.py)"
run "$PYTHON" tool/test.py --config "$config" TEST.scales '[0.75, 1.0, 1.25]' "$@"
echo "== demo (tool/demo.py)"
exec "$PYTHON" tool/demo.py --config="$config" --image=figure/demo/toy_street.jpg "$@"
