"""Masks of one class each: merging those of an image, and reporting where they overlap."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from util.data.image import read_label
from util.error import DataError
from util.extra.parallel import in_threads
from util.extra.prepare.files import VOID

Parts = Mapping[int, Path]  # id -> mask of one image
Overlaps = Counter[tuple[int, int]]  # lower and higher id -> pixels


def merge(parts: Parts) -> tuple[np.ndarray, Overlaps, int]:
    """Merge one mask per class (0 and one other value) into a map of ids; higher ids win.

    Also return the pixels each class takes from a lower one, and how many pixels have several
    classes. Raises DataError for any other mask.
    """
    ids, overlaps, shared = np.empty(0, np.int32), Overlaps(), np.zeros((), bool)
    for i in sorted(parts):
        raw = read_label(parts[i])
        ids = ids if ids.size else np.full(raw.shape, VOID, np.int32)
        values = np.unique(raw)
        if len(values) > 2 or (len(values) == 2 and values[0] != 0) or raw.shape != ids.shape:
            raise DataError(
                f"mask {parts[i]} must hold 0 and one other value, as a mask of one class, and "
                "have the size of the image's other masks"
            )
        counts = np.bincount(ids[raw > 0], minlength=VOID)
        overlaps.update({(int(k), i): int(counts[k]) for k in np.flatnonzero(counts[:VOID])})
        shared = shared | ((raw > 0) & (ids != VOID))
        ids[raw > 0] = i
    return ids, overlaps, int(shared.sum())


def overlap_warning(images: Sequence[Parts], names: Sequence[str]) -> Iterator[str]:
    """Read all masks; yield a warning if masks of different classes overlap."""
    found = in_threads(lambda parts: merge(parts)[1:], images, "masks")
    total, pixels = sum((of for of, _ in found), Overlaps()), sum(n for _, n in found)
    if not total:
        return
    (low, high), most = total.most_common(1)[0]
    worst = max(range(len(found)), key=lambda k: found[k][0][low, high])
    yield (
        f"masks of different classes overlap in {sum(n > 0 for _, n in found)} of {len(found)} "
        f"images ({pixels} pixels), most of all {names[low]} and {names[high]} ({most} pixels, as "
        f"in {images[worst][high]}): the class of the higher id is on top, so order the classes by "
        "--names, the top one last, or correct the masks"
    )
