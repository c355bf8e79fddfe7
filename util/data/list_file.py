"""Read list files: pair images with labels, find their files and name their results."""

import csv
import os
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from util.error import DataError, show

_LONGEST_LINE = 10_000  # characters; longer than any two paths
_HEADER = {"image", "img", "image_path", "filename", "file", "path", "label", "mask", "label_path"}


class SameFileError(DataError):
    """A line whose image and label are the same file."""


@dataclass(frozen=True)
class Sample:
    """Paths of an image and its label, None if the list has no labels (split test)."""

    image: Path
    label: Path | None


def read_list(list_path: str | Path, data_root: str | Path, *, has_labels: bool) -> list[Sample]:
    """Read the samples of a list file: lines of `image label`, or `image`, relative to data_root.

    Paths may contain spaces, and may be separated by tabs, commas or semicolons instead. Raises
    DataError if the list or a file in it is missing, or if an image is its own label.
    """
    return [
        parse_line(line, data_root, has_labels=has_labels, place=f"{list_path} line {number}")
        for number, line in read_lines(list_path, data_root)
    ]


def read_lines(list_path: str | Path, data_root: str | Path) -> list[tuple[int, str]]:
    """Return (line number from 1, text) of the non-blank lines of a list file, at least one.

    Raises DataError.
    """
    list_path = Path(list_path)
    if not list_path.is_file():
        raise DataError(
            f"no list file {list_path} of `image label` lines relative to {data_root}: check "
            "DATA.train_list, DATA.val_list or TEST.test_list; tool/prepare_*.py write the lists "
            "of a dataset (dataset/README.md)"
        )
    text = _decoded(list_path.read_bytes(), list_path)
    # Not splitlines(), which also splits at characters allowed in names, such as U+2028.
    texts = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    lines = [(n, line) for n, text in enumerate(texts, 1) if (line := text.strip(" \t"))]
    if not lines:
        raise DataError(f"{list_path} is empty: it must hold at least one `image label` line")
    for number, line in lines:
        if len(line) > _LONGEST_LINE:
            raise DataError(
                f"{list_path} line {number} has {len(line)} characters, so this is not a list: "
                "write one `image label` per line"
            )
    return lines


def _decoded(content: bytes, path: Path) -> str:
    """Decode a list in UTF-8, or in UTF-16 with a byte order mark."""
    is_utf16 = content[:2] in (b"\xff\xfe", b"\xfe\xff")
    nul = -1 if is_utf16 else content.find(0)
    if nul >= 0:
        raise DataError(
            f"{path} line {_line_of(content, nul)} holds a NUL character, so this is not a text "
            "file, or UTF-16 without a byte order mark: save the list as UTF-8"
        )
    try:
        return content.decode("utf-16" if is_utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} line {_line_of(content, error.start)} is not UTF-8 text (byte "
            f"0x{content[error.start]:02x}): save the list as UTF-8, for example with `iconv "
            "-f latin1 -t utf-8`"
        ) from None


def _line_of(content: bytes, offset: int) -> int:
    return content.count(b"\n", 0, offset) + 1


def parse_line(line: str, data_root: str | Path, *, has_labels: bool, place: str) -> Sample:
    """Parse a line. Raises DataError, starting with `place`, for a missing or repeated file."""
    root = os.fspath(data_root)
    if not has_labels:
        # A list with labels is allowed: they are ignored.
        for name in (line, *sorted((image for image, _ in _splits(line)), key=len, reverse=True)):
            if image := find_file(root, name):
                return Sample(Path(image), None)
        raise DataError(f"{place}: {_missing(root, line, 'image')}")
    # If paths contain spaces, the right split is the one whose two files exist.
    for image_name, label_name in _splits(line):
        image = find_file(root, image_name)
        label = image and find_file(root, label_name)
        if image and label:
            if os.path.samefile(image, label):
                raise SameFileError(
                    f"{place}: image {show(image)} and label {show(label)} are the same file: "
                    "write the path of the label after that of its image"
                )
            return Sample(Path(image), Path(label))
    raise DataError(f"{place}: {_line_problem(line, root)}")


def _splits(line: str) -> Iterator[tuple[str, str]]:
    """Yield all ways to split a line in two: (image, label)."""
    for words, separator in _columns(line):
        for i in range(1, len(words)):
            yield separator.join(words[:i]), separator.join(words[i:]).strip()


def _columns(line: str) -> Iterator[tuple[list[str], str]]:
    """Yield all ways to split a line: (words, separator that joins them)."""
    if "\t" in line:
        yield line.split("\t"), "\t"
    yield line.split(" "), " "
    for separator in (",", ";"):
        if separator in line:
            yield [w.strip() for w in next(csv.reader([line], delimiter=separator))], separator


def find_file(root: str, name: str) -> str | None:
    """Return the path of file `name` in a list, relative to `root` or absolute; None if missing.

    Also tries `/name` relative to `root`, `\\` as `/`, and both Unicode forms (NFC, NFD).
    """
    if not name:
        return None
    for variant in dict.fromkeys((name, name.lstrip("/"), name.replace("\\", "/"))):
        for form in dict.fromkeys(
            (variant, *(unicodedata.normalize(f, variant) for f in ("NFC", "NFD")))
        ):
            path = os.path.join(root, form)
            if os.path.isfile(path):
                return path
    return None


def _line_problem(line: str, root: str) -> str:
    """Return what is wrong with a line that has no split into two existing files."""
    if line.startswith("#"):
        return f"'{show(line)}' looks like a comment: remove that line"
    columns = list(_columns(line))
    if all(len(words) == 1 for words, _ in columns):
        if find_file(root, line):
            return f"holds one path, '{show(line)}': write `image label`, since labels are needed"
        return _missing(root, line, "image")
    if any({word.strip().lower() for word in words} <= _HEADER for words, _ in columns):
        return f"'{show(line)}' looks like the header of a table: remove that line"
    for words, separator in columns:
        found = [word for word in words if find_file(root, word)]
        if len(found) >= 2 and len(words) > 2:
            return (
                f"has {len(words)} columns, '{show(line)}': keep only `image label`, here "
                f"`{show(separator.join(found[:2]))}`"
            )
    for image_name, label_name in _splits(line):
        if find_file(root, image_name):
            return _missing(root, label_name, "label")
    return _missing(root, columns[-1][0][0], "image")


def _missing(root: str, name: str, what: str) -> str:
    """Return `no image PATH` and the likely reason."""
    if len(name) > 1 and name[1] == ":" and name[0].isalpha():
        return f"'{show(name)}' is a Windows path: write paths relative to DATA.data_root {root}"
    path = os.path.join(root, name)
    if os.path.isdir(path):
        return f"{show(path)} is a folder, but {what}s are files"
    near = _other_case(path)
    hint = f", but there is {show(near)}: correct the list" if near else ""
    return f"no {what} {show(path)}{hint or '; check the line and DATA.data_root'}"


def _other_case(path: str) -> str | None:
    """Return a file in the same folder whose name differs only in case."""
    folder, name = os.path.split(path)
    try:
        same = [n for n in os.listdir(folder) if n.casefold() == name.casefold()]
    except (OSError, ValueError):  # no such folder, or an invalid name
        return None
    return os.path.join(folder, same[0]) if same else None


def result_names(samples: Sequence[Sample]) -> list[str]:
    """Return a name for each sample's result files, unique in the list and without `..`.

    It is the path relative to the images' common folder, without extension unless images differ in
    nothing else.
    """
    paths = [os.path.abspath(sample.image) for sample in samples]  # resolves `..`
    base = os.path.commonpath([os.path.dirname(path) for path in paths])
    return unique_names([os.path.relpath(path, base) for path in paths])


def unique_names(paths: Sequence[str]) -> list[str]:
    """Strip the extensions of paths, except where different paths would get the same name."""
    names = {path: os.path.splitext(path)[0] for path in paths}
    while True:  # if p.jpg and p.png keep their extensions, p.jpg.png must, too
        owners: dict[str, list[str]] = {}
        for path, name in names.items():
            owners.setdefault(name, []).append(path)
        shared = {path for same in owners.values() if len(same) > 1 for path in same}
        if not shared:
            return [names[path] for path in paths]
        names |= {path: path for path in shared}
