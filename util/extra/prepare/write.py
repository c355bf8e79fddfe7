"""Writing a planned dataset: images, label maps and lists below --out.

A tool finds the raw files and describes the result as a `Plan`; `carry_out` writes it. Existing
files are never overwritten: they must equal what would be written.
"""

import argparse
import filecmp
import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from util.data.file import Header, read_header, replacing, write_text
from util.data.image import IMAGE_SUFFIXES, read_label, write_label
from util.data.label import UPRIGHT
from util.data.load import check_pair
from util.error import DataError
from util.evaluation.output import make_folder
from util.extra.parallel import in_threads
from util.extra.prepare.files import Item, Reader, Split, distinct

CURE = "remove the folder or choose another --out"


@dataclass(frozen=True)
class Plan:
    """What a tool has found and intends to write; creating a plan writes nothing."""

    name: str
    splits: Mapping[str, Split]  # list/<split>.txt -> its lines
    read: Reader
    raw: Sequence[Path]  # folders of raw data, the main one first: --out may be one of them
    official: Mapping[str, int] = field(default_factory=dict)  # split -> published count
    record: Mapping[str, Any] = field(default_factory=dict)  # options that change the result
    folders: Mapping[str, Path] = field(default_factory=dict)  # option -> further output folder

    def problems(self) -> Iterator[str]:
        """Yield the warnings."""
        for split in self.splits.values():
            yield from split.problems
        for name, count in self.official.items():
            if len(self.splits[name].items) != count:
                found = len(self.splits[name].items)
                yield f"{self.name} {name} has {found} images instead of the official {count}"


def prepare_parser(doc: str, *, source: str = "") -> argparse.ArgumentParser:
    """Return a parser with the common options; `source` is the help of --source, '' omits it."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    if source:
        parser.add_argument("--source", type=Path, required=True, help=source)
    parser.add_argument(
        "--out", type=Path, required=True, help="output folder, new or empty: dataset/<name>"
    )
    parser.add_argument("--copy", action="store_true", help="copy images instead of linking them")
    parser.add_argument("--strict", action="store_true", help="treat warnings as errors")
    return parser


def carry_out(plan: Plan, options: argparse.Namespace) -> None:
    """Write the images, labels and lists of a plan below --out; print warnings and counts.

    Raises DataError, where possible before anything is written.
    """
    out = options.out
    check_out(out)
    report_problems([*plan.problems()], options.strict)
    splits = {name: split.items for name, split in plan.splits.items() if split.items}
    if not any(item.label for items in splits.values() for item in items):
        raise DataError(
            f"{plan.raw[0]} has no image with a label of the same name: nothing to prepare"
        )
    base = next((raw for raw in plan.raw if out.resolve() == raw.resolve()), None)
    if base is not None:  # the raw images are below --out already
        splits = {name: [_in_place(item, base) for item in splits[name]] for name in splits}
    items = distinct(item for items in splits.values() for item in items)
    lists = {
        out / "list" / f"{name}.txt": "".join(f"{item.line}\n" for item in items)
        for name, items in splits.items()
    }
    source = [str(raw.resolve()) for raw in plan.raw[:1]]
    record = {"source": source, "copy": options.copy, **plan.record}
    path, is_raw = record_path(out, plan.name), base is not None
    claim(out, path, record, in_place=is_raw, folders=plan.folders)
    for path, text in lists.items():
        _refuse_other(path, text)
    written = in_threads(lambda i: _write_item(i, plan.read, out, options.copy), items, plan.name)
    print(f"{plan.name}: {out}")
    for path, text in lists.items():
        write_new(path, text)
        published = plan.official.get(path.stem)
        shown = "" if published is None else f" (official: {published})"
        print(f"  list/{path.name}: {len(splits[path.stem])}{shown}")
    labelled = sum(item.label is not None for item in items)
    print(f"  label maps: {sum(written)} written, {labelled - sum(written)} already there")


def report_problems(problems: Sequence[str], strict: bool) -> None:
    """Print warnings; with `strict`, raise DataError if there are any."""
    if strict and problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise DataError(f"--strict: {problems[0]}{more}")
    for problem in problems:
        print(f"warning: {problem}", file=sys.stderr)


def write_new(path: Path, text: str) -> None:
    """Write a text file. Raises DataError if it exists with other content."""
    _refuse_other(path, text)
    if not path.is_file():
        write_text(path, text)


def _refuse_other(path: Path, text: str) -> None:
    if path.is_file() and path.read_bytes() != text.encode():
        raise DataError(f"{path} has other content: remove it or choose another --out")


def check_out(out: Path) -> None:
    """Raise DataError if --out exists but is not a folder."""
    if out.is_symlink() and not out.exists():
        raise DataError(f"--out {out} is a broken link to {os.readlink(out)}: remove the link")
    if out.exists() and not out.is_dir():
        raise DataError(f"--out {out} is a file, not a folder: choose another --out")


def claim(
    out: Path,
    path: Path,
    record: Mapping[str, Any],
    *,
    in_place: bool = False,
    folders: Mapping[str, Path] | None = None,
) -> None:
    """Create --out and `folders` (option -> folder), and store the source and options in `path`.

    Raises DataError if --out has a different record or, unless `in_place`, other data.
    """
    check_out(out)
    if path.is_file():
        there = read_record(path)
        changes = [k for k in record if k in there and there[k] != record[k]]
        if changes:
            found = ", ".join(f"{k} {there[k]} (requested: {record[k]})" for k in changes)
            raise DataError(f"{out} was prepared with {found}: {CURE}")
    elif out.is_dir() and not in_place and any(out.iterdir()):
        raise DataError(f"--out {out} holds other data ({sorted(out.iterdir())[0].name} …): {CURE}")
    for option, folder in (folders or {}).items():
        make_folder(folder, key=option)
    if not path.is_file():
        write_text(path, json.dumps(record, indent=2) + "\n")


def record_path(out: Path, name: str) -> Path:
    """Return the path of the record of what a folder was prepared with."""
    return out / f"prepare_{name}.json"


def read_record(path: Path) -> dict[str, Any]:
    """Read what a folder was prepared with. Raises DataError."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError):
        raise DataError(f"{path} is damaged: {CURE}") from None


def _in_place(item: Item, base: Path) -> Item:
    if not item.image.is_relative_to(base):
        return item
    return replace(item, image_name=item.image.relative_to(base).as_posix())


def _write_item(item: Item, read: Reader, out: Path, copy: bool) -> bool:
    """Place the image and convert the label; return whether a label map was written."""
    path, label = out / item.label_name, None
    if item.label is not None:
        label, image, orientation = read(item.label), read_header(item.image), 1
        if item.label.suffix.lower() in IMAGE_SUFFIXES:
            orientation = read_header(item.label, "label").orientation
        height, width = label.shape
        check_pair(image, Header(item.label, "", height, width, orientation))
        if path.exists() and not np.array_equal(read_label(path), label):
            raise DataError(f"{path} holds other labels: remove it or choose another --out")
    _place(item.image, out / item.image_name, copy)
    if label is None or path.exists():
        return False
    write_label(path, label, note=UPRIGHT if image.orientation > 1 else "")
    return True


def _place(source: Path, path: Path, copy: bool) -> None:
    """Link or copy an image unless it is already there."""
    if path.exists() or path.is_symlink():
        if path.exists() and (
            path.samefile(source) or (copy and filecmp.cmp(path, source, shallow=False))
        ):
            return
        raise DataError(f"{path} holds another image: remove it or choose another --out")
    path.parent.mkdir(parents=True, exist_ok=True)
    if copy:
        with replacing(path) as temporary:
            shutil.copyfile(source, temporary)
        return
    try:
        path.symlink_to(source.resolve())
    except OSError as error:
        raise DataError(f"cannot link {path} ({error.strerror}): use --copy") from None
