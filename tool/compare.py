"""Compare two results of tool/test.py on the same list: which classes differ significantly?

Paired bootstrap over images; classes whose 95 % interval of B - A excludes 0 are marked with *.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from util.error import DataError, run_cli  # isort: split

import numpy as np

from util.evaluation.bootstrap import CONFIDENCE, DRAWS, difference_intervals, draw_counts
from util.evaluation.result import Result, read_result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("A", "B"):
        parser.add_argument(name, type=Path, help="folder with scores.json and confusion.npz")
    args = parser.parse_args()
    first, second = read_result(args.A), read_result(args.B)
    check_comparable(first, second, args.A, args.B)
    print(f"A: {args.A}\nB: {args.B}\n{len(first.images)} images\n")
    print_table(first, second)


def check_comparable(first: Result, second: Result, a: Path, b: Path) -> None:
    """Raise DataError unless both results are for the same images, labels and classes."""
    if first.names != second.names:
        raise DataError(
            f"{a} has {len(first.names)} classes ({_shorten(first.names)}), {b} has "
            f"{len(second.names)} ({_shorten(second.names)}): compare results with the same classes"
        )
    lists = [result.scores["protocol"]["list_sha256"] for result in (first, second)]
    if first.images != second.images or lists[0] != lists[1]:
        raise DataError(
            f"{a} has {len(first.images)} images, {b} has {len(second.images)}, and they are not "
            "the same ones: test both on the same TEST.test_list"
        )
    is_other = (first.areas.target != second.areas.target).any(axis=1)
    if is_other.any():
        raise DataError(
            f"{a} and {b} have different labels for {is_other.sum()} of {len(is_other)} images, "
            f"first {first.images[is_other.argmax()]}: test both on the same labels"
        )


def _shorten(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def print_table(first: Result, second: Result) -> None:
    """Print both IoUs, their difference and its interval for each class and the mean."""
    ends = difference_intervals(first.areas, second.areas, draw_counts(len(first.images)))
    width = max(map(len, [*first.names, "mIoU"]))
    print(f"{'id':>4} {'class':<{width}}  IoU A  IoU B    B - A  {CONFIDENCE:.0%} interval")
    marks = 0
    a, b = first.scores, second.scores
    for i, name in enumerate(first.names):
        line, is_beyond_chance = _format_row(
            a["iou_class"][i], b["iou_class"][i], ends.iou_class[i]
        )
        marks += is_beyond_chance
        print(f"{i:>4} {name:<{width}} {line}")
    line, _ = _format_row(a["miou"], b["miou"], ends.miou)
    print(f"{'':>4} {'mIoU':<{width}} {line}")
    chance = (1 - CONFIDENCE) * len(first.names)
    print(
        f"\n* the interval excludes 0 ({DRAWS} draws of images): {marks} of {len(first.names)} "
        f"classes; by chance alone about {chance:.1f} would be marked"
    )


def _format_row(a: float, b: float, ends: np.ndarray) -> tuple[str, bool]:
    """Format the line of two IoUs; return it and whether they differ significantly."""
    if np.isnan(ends).any():
        return f"{a:.4f} {b:.4f}  absent from both", False
    low, high = ends
    # The interval has no width if all draws agree, as for a class in a single image.
    is_beyond_chance = bool(low < high and (low > 0 or high < 0))
    mark = " *" if is_beyond_chance else ""
    return f"{a:.4f} {b:.4f}  {b - a:+.4f}  [{low:+.4f}, {high:+.4f}]{mark}", is_beyond_chance


if __name__ == "__main__":
    run_cli(main)
