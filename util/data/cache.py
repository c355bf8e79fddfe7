"""Decoded images and labels in files that all workers and ranks map into their memory.

A file is written once, under another name, and then renamed: a kill leaves a whole file or none.
Which samples are kept follows from their sizes alone, so the limit holds without any process asking
another.
"""

import hashlib
import logging
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from uuid import uuid4

import numpy as np

from util.data.file import read_header
from util.data.label_map import LabelMap
from util.data.list_file import Sample
from util.error import DataError, UserError

log = logging.getLogger("semseg")

VERSION = 1  # of the files
HEAD = np.dtype([("version", "<i8"), ("source", "<i8"), ("size", "<i8", 2), ("id_bytes", "<i8")])
UNFINISHED = ".part"
Pair = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class DecodedCache:
    """The first samples of a list, as many as the limit holds, decoded in a folder of their own."""

    folder: Path
    samples: Sequence[Sample]
    count: int  # samples that are kept

    def load(self, index: int, decode: Callable[[], Pair]) -> Pair:
        """Image (H, W, 3) uint8 and label (H, W), read-only, from the cache or decoded into it."""
        if index >= self.count:
            return decode()
        path, source = self.folder / f"{index}.raw", self._source(index)
        found = _read(path, source)
        if found is not None:
            return found
        image, label = decode()
        try:
            _write(path, source, image, label)
        except OSError as error:
            _warn_once(f"TRAIN.cache_folder {self.folder} takes no more: {error.strerror}")
        return image, label

    def _source(self, index: int) -> int:
        """A number that changes with the files of a sample."""
        sample = self.samples[index]
        try:
            states = [os.stat(path) for path in (sample.image, sample.label)]
        except OSError:
            return -1  # decoding says what is wrong
        return _digest(*((state.st_size, state.st_mtime_ns) for state in states))


def open_cache(
    folder: str, limit_gib: float, samples: Sequence[Sample], label_map: LabelMap
) -> DecodedCache:
    """A cache of these samples in a subfolder of `folder`. Raises DataError."""
    names = [(str(sample.image), str(sample.label)) for sample in samples]
    own = Path(folder) / f"{_digest(VERSION, names, label_map) & 0xFFFFFFFF:08x}"
    try:
        own.mkdir(parents=True, exist_ok=True)
        others = sum(
            path.stat().st_size for path in Path(folder).glob("*/*.raw") if path.parent != own
        )
    except OSError as error:
        raise DataError(
            f"TRAIN.cache_folder {folder} cannot be used: {error.strerror}; choose a folder on a "
            "local disk, or leave it empty"
        ) from None
    left, count = limit_gib * 2**30 - others, 0
    for sample in samples:
        with suppress(UserError):  # decoding says what is wrong
            header = read_header(sample.image)
            left -= HEAD.itemsize + header.height * header.width * 7  # 3 bytes, 4 of a large id
        if left < 0:
            break
        count += 1
    log.info(f"TRAIN.cache_folder: {count} of {len(samples)} images are kept decoded in {own}")
    return DecodedCache(own, samples, count)


def _read(path: Path, source: int) -> Pair | None:
    """The arrays of a file, None where there is none or it is of other files."""
    try:
        content = np.memmap(path, np.uint8, mode="r")
    except (OSError, ValueError):  # missing or empty
        return None
    if content.size < HEAD.itemsize:
        return None
    head = content[: HEAD.itemsize].view(HEAD)[0]
    height, width = map(int, head["size"])
    ids = HEAD.itemsize + height * width * 3
    if (head["version"], head["source"]) != (VERSION, source):
        return None
    if content.size != ids + height * width * head["id_bytes"]:
        return None
    kind = np.uint8 if head["id_bytes"] == 1 else np.int32
    image = np.asarray(content[HEAD.itemsize : ids]).reshape(height, width, 3)
    return image, np.asarray(content[ids:]).view(kind).reshape(height, width)


def _write(path: Path, source: int, image: np.ndarray, label: np.ndarray) -> None:
    kind = np.uint8 if label.max(initial=0) <= 255 else np.int32
    head = np.array((VERSION, source, label.shape, np.dtype(kind).itemsize), HEAD)
    temporary = path.with_name(f"{uuid4().hex}{UNFINISHED}")
    try:
        with temporary.open("wb") as file:
            file.write(head.tobytes())
            file.write(np.ascontiguousarray(image))
            file.write(np.ascontiguousarray(label, kind))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@cache
def _warn_once(text: str) -> None:
    log.warning(text)


def _digest(*values: object) -> int:
    """63 bits that depend on the values."""
    return int.from_bytes(hashlib.sha256(repr(values).encode()).digest()[:8], "big") >> 1
