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

from tqdm import tqdm

from util.data.coding import LabelFacts, facts_of
from util.data.file import CodingError, Header
from util.data.image import decode_image
from util.data.label import decode_label
from util.data.list_file import Sample
from util.data.load import check_pair
from util.error import DataError

CHUNK = 16  # pairs that a process takes at a time
Given, Found = TypeVar("Given"), TypeVar("Found")


@dataclass(frozen=True)
class Facts:
    """One pair: what is wrong with the files, else what they hold.

    `faults` are (kind, file, sentence). `label` says how the label is stored; of one that
    `is_color_image` (against the config) its ids are colours r*65536+g*256+b.
    """

    faults: list[tuple[str, str, str]] = field(default_factory=list)
    digest: bytes = b""
    label: LabelFacts | None = None
    is_color_image: bool = False

    @property
    def ids(self) -> dict[int, int]:
        """Raw id -> pixels."""
        return self.label.ids if self.label else {}


def inspect_pair(sample: Sample, *, as_colors: bool) -> Facts:
    """Decode image and label as training does, and count."""
    assert sample.label is not None
    faults, header, label, digest = [], None, None, b""
    try:
        image, turned = decode_image(sample.image)
        digest = hashlib.blake2b(image, digest_size=16, key=str(image.shape).encode()).digest()
        header = Header(sample.image, "RGB", *image.shape[:2], turned)
    except DataError as error:
        faults.append((_kind_of_damage(sample.image, error), str(sample.image), str(error)))
    try:
        label = decode_label(sample.label, as_colors=as_colors)
    except DataError as error:
        faults.append((_kind_of_damage(sample.label, error), str(sample.label), str(error)))
    if header is not None and label is not None:
        try:
            check_pair(header, label.header)
        except DataError as error:
            kind = "coding" if isinstance(error, CodingError) else "size-mismatch"
            faults.append((kind, str(sample.label), str(error)))
    if label is None:
        return Facts(faults, digest)
    return Facts(faults, digest, facts_of(label), label.kind == "colors" and not as_colors)


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


def _kind_of_damage(path: Path, error: DataError) -> str:
    if isinstance(error, CodingError):
        return "coding"
    if path.is_file() and path.stat().st_size == 0:
        return "empty-file"
    # What Pillow says of a JPEG and of a PNG that end too early.
    is_cut = any(words in str(error) for words in ("truncated", "unrecognized data stream"))
    return "truncated" if is_cut else "unreadable"
