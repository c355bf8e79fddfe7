"""Cache of decoded images and labels: files that all workers and ranks map into memory.

Files are written atomically, so a killed process leaves none that is corrupt. Which samples are
cached depends on their sizes alone, so processes keep to the limit without communicating.
"""

import hashlib
import logging
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from util.data.file import read_header, replacing
from util.data.label_map import LabelMap
from util.data.list_file import Sample
from util.data.transform import Pair
from util.error import DataError, UserError

log = logging.getLogger("semseg")

VERSION = 3  # of the file format


@dataclass(frozen=True)
class DecodedCache:
    """The first samples of a list, as many as fit within the limit, decoded in their own folder."""

    folder: Path
    samples: Sequence[Sample]
    layouts: Sequence[np.dtype]  # of the files of the cached samples

    def load(self, index: int, decode: Callable[[int], Pair]) -> Pair:
        """Return the image (H, W, 3) uint8 and label (H, W), cached if possible.

        Do not modify them: cached arrays are read-only.
        """
        if index >= len(self.layouts):
            return decode(index)
        path, layout = self.folder / f"{index}.raw", self.layouts[index]
        source = self._source(index)
        with suppress(OSError, ValueError):  # missing; empty or truncated
            found = np.asarray(np.memmap(path, layout, mode="r", shape=()))
            if found["source"] == source:
                return found["image"], found["label"]
        image, label = decode(index)
        if label.shape == layout["label"].shape:
            try:
                _write(path, np.array((source, label, image), layout))
            except OSError as error:
                _warn_once(
                    f"TRAIN.cache_folder {self.folder} cannot be filled further: {error.strerror}"
                )
        return image, label

    def _source(self, index: int) -> int:
        """Return a number that changes when a file of the sample does."""
        sample = self.samples[index]
        try:
            states = [os.stat(path) for path in (sample.image, sample.label) if path]
        except OSError:
            return -1  # decoding reports the error
        return _digest(*((state.st_size, state.st_mtime_ns, state.st_ctime_ns) for state in states))


def open_cache(
    folder: str, limit_gib: float, samples: Sequence[Sample], label_map: LabelMap
) -> DecodedCache:
    """Open the cache of these samples in a subfolder of `folder`. Raises DataError.

    `limit_gib` limits the size of all caches in `folder` together, in GiB.
    """
    names = [(str(sample.image), str(sample.label)) for sample in samples]
    own = Path(folder) / f"{_digest(VERSION, names, label_map) & 0xFFFFFFFF:08x}"
    try:
        own.mkdir(parents=True, exist_ok=True)
        others = sum(
            path.stat().st_size for path in Path(folder).glob("*/*.raw") if path.parent != own
        )
    except OSError as error:
        raise DataError(
            f"TRAIN.cache_folder {folder} cannot be used ({error.strerror}): choose a folder on a "
            "local disk, or leave the key empty"
        ) from None
    left, layouts = limit_gib * 2**30 - others, []
    id_type = np.uint8 if max(label_map.classes - 1, label_map.ignore_label) <= 255 else np.int32
    for sample in samples:
        size = (0, 0)
        with suppress(UserError):  # decoding reports the error
            header = read_header(sample.image)
            size = header.height, header.width
        layout = np.dtype(
            [("source", np.int64), ("label", id_type, size), ("image", np.uint8, (*size, 3))]
        )
        left -= layout.itemsize
        if left < 0:
            break
        layouts.append(layout)
    log.info(
        f"TRAIN.cache_folder: caching {len(layouts)} of {len(samples)} decoded images in {own}"
    )
    return DecodedCache(own, samples, layouts)


def _write(path: Path, content: np.ndarray) -> None:
    with replacing(path) as temporary:
        content.tofile(temporary)


@cache
def _warn_once(text: str) -> None:
    log.warning(text)


def _digest(*values: object) -> int:
    """Hash the values to 63 bits."""
    return int.from_bytes(hashlib.sha256(repr(values).encode()).digest()[:8], "big") >> 1
