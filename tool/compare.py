"""Compare two results of tool/test.py on the same list: which classes differ beyond chance.

Paired bootstrap over images: a mark stands where the 95 % interval of B - A excludes 0.
"""

import argparse
import json
import sys
import zipfile
from dataclasses import dataclass, fields
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from util.error import DataError, run_cli  # isort: split

import numpy as np

from util.evaluation.bootstrap import CONFIDENCE, DRAWS, Areas, difference_intervals, draw_counts


@dataclass(frozen=True)
class Result:
    """A result folder: names of its C classes and N images, their areas, and its scores."""

    folder: Path
    names: list[str]
    images: list[str]
    list_sha256: str
    areas: Areas
    iou_class: np.ndarray
    miou: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("A", "B"):
        parser.add_argument(name, type=Path, help="folder with scores.json and confusion.npz")
    args = parser.parse_args()
    first, second = read_result(args.A), read_result(args.B)
    check_comparable(first, second)
    print(f"A: {first.folder}\nB: {second.folder}\n{len(first.images)} images\n")
    print_table(first, second)


def read_result(folder: Path) -> Result:
    """The files of a result folder. Raises DataError."""
    scores_path, counts_path = folder / "scores.json", folder / "confusion.npz"
    for path in (scores_path, counts_path):
        if not path.is_file():
            raise DataError(
                f"no {path}: give folders that tool/test.py wrote; TEST.has_prediction True scores "
                "the predictions of an older one again"
            )
    try:
        scores = json.loads(scores_path.read_text(encoding="utf-8"))
        with np.load(counts_path) as counts:
            areas = Areas(**{field.name: counts[field.name] for field in fields(Areas)})
            images = counts["images"].tolist()
        return Result(
            folder,
            scores["names"],
            images,
            scores["protocol"]["list_sha256"],
            areas,
            np.array(scores["iou_class"]),
            scores["miou"],
        )
    except (KeyError, ValueError, EOFError, zipfile.BadZipFile):
        raise DataError(
            f"{folder} holds a damaged scores.json or confusion.npz: test again"
        ) from None


def check_comparable(first: Result, second: Result) -> None:
    """Raise DataError unless both scored the same images against the same labels."""
    a, b = first.folder, second.folder
    if first.names != second.names:
        raise DataError(
            f"{a} has {len(first.names)} classes ({_some(first.names)}), {b} has "
            f"{len(second.names)} ({_some(second.names)}): results of the same classes compare"
        )
    if (first.list_sha256, first.images) != (second.list_sha256, second.images):
        raise DataError(
            f"{a} has {len(first.images)} images, {b} has {len(second.images)}, of different "
            "lists or parts of lists: test both on the same TEST.test_list"
        )
    is_other = (first.areas.target != second.areas.target).any(axis=1)
    if is_other.any():
        raise DataError(
            f"{a} and {b} have different labels for {is_other.sum()} of {len(is_other)} images, "
            f"first {first.images[is_other.argmax()]}: test both on the same labels"
        )


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def print_table(first: Result, second: Result) -> None:
    """A line for each class and one for the mean: both IoUs, their difference, its interval."""
    ends = difference_intervals(first.areas, second.areas, draw_counts(len(first.images)))
    width = max(map(len, [*first.names, "mIoU"]))
    print(f"{'id':>4} {'class':<{width}}  IoU A  IoU B    B - A  {CONFIDENCE:.0%} interval")
    marks = 0
    for i, name in enumerate(first.names):
        line, is_beyond_chance = _cells(first.iou_class[i], second.iou_class[i], ends.iou_class[i])
        marks += is_beyond_chance
        print(f"{i:>4} {name:<{width}} {line}")
    line, _ = _cells(first.miou, second.miou, ends.miou)
    print(f"{'':>4} {'mIoU':<{width}} {line}")
    chance = (1 - CONFIDENCE) * len(first.names)
    print(
        f"\n* the interval excludes 0 ({DRAWS} draws of images): {marks} of {len(first.names)} "
        f"classes; about {chance:.1f} would by chance between equals"
    )


def _cells(a: float, b: float, ends: np.ndarray) -> tuple[str, bool]:
    """The line of two IoUs, and whether they differ beyond chance."""
    if np.isnan(ends).any():
        return f"{a:.4f} {b:.4f}  absent from both", False
    low, high = ends
    is_beyond_chance = bool(low > 0 or high < 0)
    mark = " *" if is_beyond_chance else ""
    return f"{a:.4f} {b:.4f}  {b - a:+.4f}  [{low:+.4f}, {high:+.4f}]{mark}", is_beyond_chance


if __name__ == "__main__":
    run_cli(main)
