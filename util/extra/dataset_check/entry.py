"""The lines of list files, and the contents of the files they name."""

import hashlib
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from util.data.coding import LabelFacts, facts_of
from util.data.file import CodingError
from util.data.image import decode_image
from util.data.label import decode_label
from util.data.label_map import LabelMap
from util.data.list_file import SameFileError, Sample, parse_line, read_lines
from util.data.load import are_swapped, check_pair
from util.error import DataError
from util.extra.parallel import in_threads


@dataclass(frozen=True)
class Fault:
    """A problem with a file."""

    kind: str
    path: Path
    sentence: str


@dataclass(frozen=True)
class Entry:
    """A line of a list and the contents of its files; `sample` is None if a file is missing.

    `label` describes the label file. If it `is_color_image` although the config expects ids, its
    ids are colours r*65536+g*256+b.
    """

    split: str
    list_path: Path
    number: int
    sample: Sample | None
    faults: list[Fault]
    digest: bytes = b""  # of the image's pixels
    label: LabelFacts | None = None
    is_color_image: bool = False

    @property
    def image_path(self) -> Path:
        """Path of the image; the entry must have a sample."""
        assert self.sample is not None
        return self.sample.image

    @property
    def label_path(self) -> Path:
        """Path of the label; the entry must have a sample."""
        assert self.sample is not None and self.sample.label is not None
        return self.sample.label

    @property
    def ids(self) -> Mapping[int, int]:
        """Raw id -> pixels."""
        return self.label.ids if self.label else {}


def read_entries(split: str, list_path: str, data_root: str, label_map: LabelMap) -> list[Entry]:
    """Read a list and decode its files as in training. Raises DataError if the list is missing."""
    read = partial(_read_entry, split, Path(list_path), data_root, label_map)
    return in_threads(read, read_lines(list_path, data_root), split)


def _read_entry(
    split: str, list_path: Path, data_root: str, label_map: LabelMap, line: tuple[int, str]
) -> Entry:
    faults: list[Fault] = []
    as_colors = label_map.is_of_colors
    header, digest, label = None, b"", None
    number, text = line
    try:
        place = f"{list_path} line {number}"
        sample = parse_line(text, data_root, has_labels=True, place=place)
    except DataError as error:
        kind = "same-file" if isinstance(error, SameFileError) else "missing"
        return Entry(split, list_path, number, None, [Fault(kind, list_path, str(error))])
    assert sample.label is not None
    with _noting(faults, sample.image):
        image, header = decode_image(sample.image)
        digest = hashlib.blake2b(image.data, digest_size=16, key=str(image.shape).encode()).digest()
    with _noting(faults, sample.label):
        label = decode_label(sample.label, as_colors=as_colors)
    is_color_image = label is not None and label.kind == "colors" and not as_colors
    if (label is None or is_color_image) and are_swapped(sample, label_map):
        sentence = f"{place}: {sample.image} holds class ids, {sample.label} is a photo"
        swapped = Fault("swapped-columns", list_path, sentence)
        return Entry(split, list_path, number, sample, [swapped])
    if label is None:
        return Entry(split, list_path, number, sample, faults, digest)
    if header is not None:
        with _noting(faults, sample.label, kind="size-mismatch"):
            check_pair(header, label.header)
    if label.orientation > 1:
        sentence = f"label {sample.label} has EXIF orientation {label.orientation}"
        faults.append(Fault("turned-label", sample.label, sentence))
    facts = facts_of(label)
    return Entry(split, list_path, number, sample, faults, digest, facts, is_color_image)


@contextmanager
def _noting(faults: list[Fault], path: Path, *, kind: str = "") -> Iterator[None]:
    """Record a DataError within this context as a fault of the file."""
    try:
        yield
    except DataError as error:
        kind = "coding" if isinstance(error, CodingError) else kind or _damage(path, error)
        faults.append(Fault(kind, path, str(error)))


def _damage(path: Path, error: DataError) -> str:
    if path.is_file() and path.stat().st_size == 0:
        return "empty-file"
    # Pillow's messages for a truncated JPEG and a truncated PNG.
    is_cut = any(words in str(error) for words in ("truncated", "unrecognized data stream"))
    return "truncated" if is_cut else "unreadable"


def are_most(part: Iterable[Entry], entries: Iterable[Entry]) -> bool:
    """Whether a part holds nine tenths or more of the lines of a list."""
    whole = Counter(entry.split for entry in entries)
    of_part = Counter(split for split, _ in {(entry.split, entry.number) for entry in part})
    return any(10 * count >= 9 * whole[split] for split, count in of_part.items())


def blank_lines(entries: Iterable[Entry]) -> str:
    """Return a shell command that blanks the lines of these entries.

    Blank lines are allowed in lists and keep the line numbers, so such commands can be combined.
    """
    numbers: dict[Path, set[int]] = {}
    for entry in entries:
        numbers.setdefault(entry.list_path, set()).add(entry.number)
    return " && ".join(
        f"sed -i '{';'.join(f'{n}s/.*//' for n in sorted(lines))}' {shlex.quote(str(path))}"
        for path, lines in numbers.items()
    )
