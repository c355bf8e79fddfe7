"""Draws the toy dataset of the quick start: procedural street scenes with exact labels.

    python tool/prepare_toy.py --out dataset/toy

A scene depends on nothing but (seed, split, index) and the size; util/toy draws it.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from util.error import UserError, run_cli
from util.extra.toy.scene import MIN_SIZE, VERSION, draw_scene

SPLITS = ("train", "val")  # the position of a split is part of its random seed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder to write, new or empty")
    parser.add_argument("--train", type=int, default=300, help="number of training images")
    parser.add_argument("--val", type=int, default=40, help="number of validation images")
    parser.add_argument("--height", type=int, default=240, help="height of an image in pixels")
    parser.add_argument("--width", type=int, default=320, help="width of an image in pixels")
    parser.add_argument("--seed", type=int, default=0, help="another seed draws another city")
    options = vars(parser.parse_args())
    print(draw_dataset(options.pop("out"), **options))


def draw_dataset(out: Path, *, train: int, val: int, height: int, width: int, seed: int) -> str:
    """Write images, labels, lists and toy.json under `out`; return a sentence on what was done."""
    options = {"train": train, "val": val, "height": height, "width": width, "seed": seed}
    limits = {"train": 1, "val": 1, "height": MIN_SIZE, "width": MIN_SIZE, "seed": 0}
    for name, least in limits.items():
        if options[name] < least:
            raise UserError(f"--{name} must be at least {least}, got {options[name]}")
    what = f"{train} train and {val} val images in {out}"
    if holds_same_set(out, options | {"version": VERSION}):
        return f"toy: {what} are there already; nothing to do"
    start = time.perf_counter()
    for number, split in enumerate(SPLITS):
        for folder in (f"images/{split}", f"labels/{split}", "list"):
            (out / folder).mkdir(parents=True, exist_ok=True)
        lines = []
        for index in range(options[split]):
            image, label = draw_scene(np.random.default_rng((seed, number, index)), height, width)
            image_name = f"images/{split}/{index:04d}.jpg"
            label_name = f"labels/{split}/{index:04d}.png"
            bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
            write_image(out / image_name, bgr, (cv2.IMWRITE_JPEG_QUALITY, 95))
            write_image(out / label_name, label, ())
            lines.append(f"{image_name} {label_name}\n")
        (out / "list" / f"{split}.txt").write_text("".join(lines))
    # Last, so that an interrupted run is not taken for a complete one.
    (out / "toy.json").write_text(json.dumps(options | {"version": VERSION}, indent=2) + "\n")
    return f"toy: {what} ({time.perf_counter() - start:.1f} s)"


def holds_same_set(out: Path, options: dict[str, int]) -> bool:
    """True: `out` is complete; False: free to write. Anything else there is a UserError."""
    cure = "remove the folder or choose another --out"
    if not out.exists():
        return False
    if not out.is_dir():
        raise UserError(f"{out} is a file, not a folder; choose another --out")
    if not (out / "toy.json").is_file():
        if any(out.iterdir()):
            what = "is not empty and has no toy.json (other data or an unfinished run)"
            raise UserError(f"{out} {what}; {cure}")
        return False
    try:
        found = dict(json.loads((out / "toy.json").read_text()))
    except (ValueError, TypeError) as error:
        raise UserError(f"{out}/toy.json is damaged ({error}); {cure}") from error
    changes = [f"{k} {found.get(k)} (asked: {v})" for k, v in options.items() if found.get(k) != v]
    if changes:
        raise UserError(f"{out} holds a toy set with {', '.join(changes)}; {cure}")
    return True


def write_image(path: Path, image: np.ndarray, flags: tuple[int, ...]) -> None:
    if not cv2.imwrite(str(path), image, flags):
        raise UserError(f"cannot write {path}; check the free space and the rights of the folder")


if __name__ == "__main__":
    run_cli(main)
