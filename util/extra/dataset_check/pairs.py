"""What one pair of files holds, found in many processes at once."""

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from tqdm import tqdm

from util.data.image import check_sizes, read_image, read_label
from util.data.list_file import Sample
from util.error import DataError

CHUNK = 16  # pairs that a process takes at a time
Given, Found = TypeVar("Given"), TypeVar("Found")


@dataclass(frozen=True)
class Facts:
    """One pair: what is wrong with the files, else what they hold.

    `faults` are (kind, file, sentence). `ids` are raw ids -> pixels; of a label that
    `is_color_image` (against the config) they are colours r*65536+g*256+b.
    """

    faults: list[tuple[str, str, str]] = field(default_factory=list)
    digest: bytes = b""
    ids: dict[int, int] = field(default_factory=dict)
    is_color_image: bool = False


def inspect_pair(sample: Sample, *, as_colors: bool) -> Facts:
    """Decode image and label as training does, and count."""
    assert sample.label is not None
    faults, image, label, digest, is_color_image = [], None, None, b"", False
    try:
        image = read_image(sample.image)
        digest = hashlib.blake2b(image, digest_size=16, key=str(image.shape).encode()).digest()
    except DataError as error:
        faults.append((_kind_of_damage(sample.image, error), str(sample.image), str(error)))
    try:
        label, is_color_image = _read_any_label(sample.label, as_colors)
    except DataError as error:
        faults.append((_kind_of_damage(sample.label, error), str(sample.label), str(error)))
    if image is not None and label is not None:
        try:
            check_sizes(image, label, sample.image, sample.label)
        except DataError as error:
            faults.append(("size-mismatch", str(sample.label), str(error)))
    ids = {} if label is None else count_ids(label)
    return Facts(faults, digest, ids, is_color_image)


def count_ids(label: np.ndarray) -> dict[int, int]:
    """Id -> pixels."""
    if label.min(initial=0) >= 0 and label.max(initial=0) < 2**16:
        counts = np.bincount(label.ravel())
        ids = np.flatnonzero(counts)
        counts = counts[ids]
    else:
        ids, counts = np.unique(label, return_counts=True)
    return dict(zip(ids.tolist(), counts.tolist(), strict=True))


def in_processes(work: Callable[[Given], Found], items: Sequence[Given]) -> list[Found]:
    """[work(item), ...] on all usable processors, with a bar where someone watches."""
    workers = min(usable_processors(), len(items) // CHUNK)
    bar = partial(tqdm, total=len(items), disable=None, leave=False)
    if workers < 2:
        return [work(item) for item in bar(items)]
    try:
        with ProcessPoolExecutor(workers) as pool:
            return list(bar(pool.map(work, items, chunksize=CHUNK)))
    except BrokenProcessPool:
        raise DataError(
            "a process that was reading images was killed, most likely for want of memory: "
            "free some and try again"
        ) from None


def usable_processors() -> int:
    """How many this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _read_any_label(path: Path, as_colors: bool) -> tuple[np.ndarray, bool]:
    """(ids, False), or (colours, True) of a colour image where ids are expected."""
    try:
        return read_label(path, as_colors=as_colors), False
    except DataError as error:
        try:
            return read_label(path, as_colors=True), True
        except DataError:
            raise error from None


def _kind_of_damage(path: Path, error: DataError) -> str:
    if path.stat().st_size == 0:
        return "empty-file"
    # What Pillow says of a JPEG and of a PNG that end too early.
    is_cut = any(words in str(error) for words in ("truncated", "unrecognized data stream"))
    return "truncated" if is_cut else "unreadable"
