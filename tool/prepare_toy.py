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
    for folder in (
        "list",
        *(f"{kind}/{split}" for kind in ("images", "labels") for split in SPLITS),
    ):
        (out / folder).mkdir(parents=True, exist_ok=True)
    write_record(out, record | {"complete": False})
    scenes = [(number, i) for number, split in enumerate(SPLITS) for i in range(options[split])]
    draw = partial(write_scene, out=out, height=height, width=width, seed=seed)
    lines = in_threads(draw, scenes, "toy scenes")
    for number, split in enumerate(SPLITS):
        text = "".join(line for (n, _), line in zip(scenes, lines, strict=True) if n == number)
        write_text(out / "list" / f"{split}.txt", text)
    write_record(out, record)
    return f"toy: {what} ({time.perf_counter() - start:.1f} s)"


def is_complete(out: Path, record: dict[str, int]) -> bool:
    """Whether the requested set exists already. Raises UserError if `out` holds anything else."""
    cure = "remove the folder or choose another --out"
    if not out.exists():
        return False
    if not out.is_dir():
        raise UserError(f"--out {out} is a file, not a folder: choose another --out")
    if not (out / "toy.json").is_file():
        if any(out.iterdir()):
            raise UserError(f"--out {out} holds other data (no toy.json): {cure}")
        return False
    try:
        found = dict(json.loads((out / "toy.json").read_text()))
    except (ValueError, TypeError) as error:
        raise UserError(f"{out}/toy.json is damaged ({error}): {cure}") from None
    is_whole = found.get("complete", True)
    # Scenes do not depend on their number, so an incomplete set may be resized.
    fixed = [key for key in record if is_whole or key not in SPLITS]
    changes = [
        f"{k} {found.get(k)} (asked: {record[k]})" for k in fixed if found.get(k) != record[k]
    ]
    if changes:
        raise UserError(f"{out} holds a toy set with {', '.join(changes)}: {cure}")
    return is_whole


def write_record(out: Path, record: dict[str, int]) -> None:
    """Write toy.json atomically."""
    write_text(out / "toy.json", json.dumps(record, indent=2) + "\n")


def write_scene(place: tuple[int, int], *, out: Path, height: int, width: int, seed: int) -> str:
    """Draw the scene (split, index) unless it exists; return its list line."""
    number, index = place
    image_name = f"images/{SPLITS[number]}/{index:04d}.jpg"
    label_name = f"labels/{SPLITS[number]}/{index:04d}.png"
    if not ((out / image_name).exists() and (out / label_name).exists()):
        image, label = draw_scene(np.random.default_rng((seed, number, index)), height, width)
        jpeg = (cv2.IMWRITE_JPEG_QUALITY, 95)
        write_image(out / image_name, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), jpeg)
        write_image(out / label_name, label, ())
    return f"{image_name} {label_name}\n"


def write_image(path: Path, image: np.ndarray, flags: tuple[int, ...]) -> None:
    """Write an image file atomically."""
    _, content = cv2.imencode(path.suffix, image, flags)
    with replacing(path) as temporary:
        temporary.write_bytes(content)


if __name__ == "__main__":
    run_cli(main)
