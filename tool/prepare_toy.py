"""Draw the toy dataset of the quick start: procedural street scenes with exact labels.

    python tool/prepare_toy.py --out dataset/toy

A scene depends only on (seed, split, index) and the size. After an interruption the same command
continues.
"""

import argparse
import json
import sys
import time
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from util.error import UserError, run_cli  # isort: split

import cv2
import numpy as np

from util.data.file import replacing, write_text
from util.extra.parallel import in_threads
from util.extra.prepare.write import claim, read_record
from util.extra.toy.scene import MIN_SIZE, VERSION, draw_scene

SPLITS = ("train", "val")  # the position of a split is part of its random seed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="output folder, new or empty")
    parser.add_argument("--train", type=int, default=300, help="number of training images")
    parser.add_argument("--val", type=int, default=40, help="number of validation images")
    parser.add_argument("--height", type=int, default=240, help="height of an image in pixels")
    parser.add_argument("--width", type=int, default=320, help="width of an image in pixels")
    parser.add_argument("--seed", type=int, default=0, help="random seed of the scenes")
    options = vars(parser.parse_args())
    print(draw_dataset(options.pop("out"), **options))


def draw_dataset(out: Path, *, train: int, val: int, height: int, width: int, seed: int) -> str:
    """Write images, labels, lists and toy.json to `out`; return a one-line summary."""
    options = {"train": train, "val": val, "height": height, "width": width, "seed": seed}
    limits = {"train": 1, "val": 1, "height": MIN_SIZE, "width": MIN_SIZE, "seed": 0}
    for name, least in limits.items():
        if options[name] < least:
            raise UserError(f"--{name} must be at least {least}, got {options[name]}")
    what = f"{train} train and {val} val images in {out}"
    record = options | {"version": VERSION}
    if is_complete(out, record):
        return f"toy: {what} exist; nothing to do"
    start = time.perf_counter()
    for number, split in enumerate(SPLITS):
        for kind in ("images", "labels"):
            (out / kind / split).mkdir(parents=True, exist_ok=True)
        draw = partial(write_scene, number, out=out, height=height, width=width, seed=seed)
        lines = in_threads(draw, range(options[split]), f"toy {split}")
        write_text(out / "list" / f"{split}.txt", "".join(lines))
    write_text(out / "toy.json", json.dumps(record, indent=2) + "\n")
    return f"toy: {what} ({time.perf_counter() - start:.1f} s)"


def is_complete(out: Path, record: dict[str, int]) -> bool:
    """Whether the requested set exists already. Raises DataError if `out` holds anything else."""
    path = out / "toy.json"
    there = read_record(path) if path.is_file() else {"complete": False}
    is_whole = there.get("complete", True)
    # Scenes do not depend on their number, so an incomplete set may be resized.
    fixed = {key: value for key, value in record.items() if is_whole or key not in SPLITS}
    claim(out, path, fixed | {"complete": False})
    return is_whole


def write_scene(number: int, index: int, *, out: Path, height: int, width: int, seed: int) -> str:
    """Draw a scene of split `number` unless it exists; return its list line."""
    image_name = f"images/{SPLITS[number]}/{index:04d}.jpg"
    label_name = f"labels/{SPLITS[number]}/{index:04d}.png"
    if not ((out / image_name).exists() and (out / label_name).exists()):
        image, label = draw_scene(np.random.default_rng((seed, number, index)), height, width)
        image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
        for name, pixels, flags in (
            (image_name, image, (cv2.IMWRITE_JPEG_QUALITY, 95)),
            (label_name, label, ()),
        ):
            with replacing(out / name) as temporary:
                temporary.write_bytes(cv2.imencode(Path(name).suffix, pixels, flags)[1])
    return f"{image_name} {label_name}\n"


if __name__ == "__main__":
    run_cli(main)
