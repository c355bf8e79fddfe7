"""List files -> samples: which image goes with which label, and the names of their results."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from util.error import DataError


@dataclass(frozen=True)
class Sample:
    """Paths of an image and its label map; no label where the list has none (split test)."""

    image: Path
    label: Path | None


def read_list(list_path: str | Path, data_root: str | Path, *, has_labels: bool) -> list[Sample]:
    """Samples of a list file: `image label` a line (or `image` alone), relative to data_root.

    Paths may hold spaces. Raises DataError when the list, or a file it names, is missing.
    """
    return [
        parse_line(line, data_root, has_labels=has_labels, place=f"{list_path} line {number}")
        for number, line in read_lines(list_path, data_root)
    ]


def read_lines(list_path: str | Path, data_root: str | Path) -> list[tuple[int, str]]:
    """(line number from 1, text) of the lines of a list file that are not blank, at least one.

    Raises DataError.
    """
    list_path = Path(list_path)
    if not list_path.is_file():
        raise DataError(
            f"no list file {list_path}: it holds `image label` lines relative to {data_root}; "
            "check DATA.train_list, DATA.val_list or TEST.test_list"
        )
    try:
        texts = list_path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise DataError(f"{list_path} is not a text file in UTF-8") from None
    lines = [(number, text.strip()) for number, text in enumerate(texts, 1) if text.strip()]
    if not lines:
        raise DataError(f"{list_path} is empty: it must hold at least one `image label` line")
    return lines


def parse_line(line: str, data_root: str | Path, *, has_labels: bool, place: str) -> Sample:
    """The sample of a line. Raises DataError, beginning with `place`, where a file is missing."""
    root = Path(data_root)
    words = line.split("\t") if "\t" in line else line.split(" ")
    if not has_labels:
        # A list with labels serves as well: the label is not used.
        for end in range(len(words), 0, -1):
            if (root / " ".join(words[:end])).is_file():
                return Sample(root / " ".join(words[:end]), None)
        raise DataError(f"{place}: no image {root / line}")
    if len(words) == 1:
        raise DataError(f"{place} holds one path, '{line}': `image label` is needed to have labels")
    # Where paths hold spaces, the right split is the one whose two files exist.
    splits = [(" ".join(words[:i]), " ".join(words[i:])) for i in range(1, len(words))]
    for image, label in splits:
        if (root / image).is_file() and (root / label.strip()).is_file():
            return Sample(root / image, root / label.strip())
    image, label = next((s for s in splits if (root / s[0]).is_file()), splits[0])
    what, path = ("label", label) if (root / image).is_file() else ("image", image)
    raise DataError(f"{place}: no {what} {root / path}; check the line and DATA.data_root")


def result_names(samples: Sequence[Sample]) -> list[str]:
    """A name for each sample's result files, unique in the list: its path below the folder that all
    images share, without extension (with it where two images differ in nothing else)."""
    paths = [os.fspath(sample.image) for sample in samples]
    base = os.path.commonpath([os.path.dirname(path) for path in paths])
    names = [os.path.relpath(os.path.splitext(path)[0], base) for path in paths]
    taken: dict[str, set[str]] = {}
    for name, path in zip(names, paths, strict=True):
        taken.setdefault(name, set()).add(path)
    return [
        name if len(taken[name]) == 1 else os.path.relpath(path, base)
        for name, path in zip(names, paths, strict=True)
    ]
