"""From raw data to the parts of a plan: finding folders, pairing files, mapping values to ids."""

import os
import unicodedata
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from util.data.image import IMAGE_SUFFIXES, read_label
from util.data.label_map import color_text
from util.error import DataError, UserError

VOID = 255
Named = dict[str, Path]  # name below a folder, as matched by the `*` of a pattern -> file
Reader = Callable[[Path], np.ndarray]  # raw label file -> ids (H, W) 0..classes-1, else VOID


@dataclass(frozen=True)
class Item:
    """A line of a list: raw image and label (None: no label), and their names below --out."""

    image: Path
    image_name: str
    label: Path | None = None
    label_name: str = ""

    @property
    def line(self) -> str:
        """The text of the line. Raises DataError for names that a list cannot hold."""
        line = f"{self.image_name} {self.label_name}".rstrip()
        is_utf8 = line.encode(errors="ignore").decode() == line
        if is_utf8 and len(line.splitlines()) == 1 and "\t" not in line:
            return line
        raise DataError(
            f"image {str(self.image)!a} has a tab, a line break or bytes that are not UTF-8 in its "
            "name, which a list cannot hold: rename it"
        )


def distinct(items: Iterable[Item]) -> list[Item]:
    """Return the items without repetitions. Raises DataError if two files have the same name."""
    found: dict[str, Item] = {}
    for item in items:
        for name in filter(None, (item.label_name, item.image_name)):
            other = found.setdefault(name, item)
            if other.image != item.image:
                raise DataError(
                    f"{other.image} and {item.image} would both become {name}: rename one of them "
                    "(and its mask)"
                )
    return list({item.image_name: item for item in found.values()}.values())


@dataclass(frozen=True)
class Split:
    """The lines of a list, and messages about files that were left out."""

    items: list[Item]
    problems: Sequence[str] = ()


def find_root(
    source: Path,
    folders: Sequence[str],
    *,
    below: Sequence[str] = (),
    example: str,
    option: str = "--source",
) -> Path:
    """Return `source`, or a folder `below` it, that holds all `folders`.

    Raises DataError with the missing folders and the path of an `example` file.
    """
    if not source.is_dir():
        raise DataError(f"{option} {source} is not a folder: give the unpacked download")
    roots = [source, *(source / name for name in below if (source / name).is_dir())]
    missing = {root: [f for f in folders if not (root / f).is_dir()] for root in roots}
    best = min(roots, key=lambda root: len(missing[root]))
    if not missing[best]:
        return best
    packed = sorted(p.name for p in best.iterdir() if p.suffix in (".zip", ".tar", ".tgz", ".gz"))
    hint = f"; unpack {packed[0]} first" if packed else ""
    raise DataError(
        f"no folder {', '.join(missing[best])} in {best} ({option}): expected files such as "
        f"{best}/{example}{hint}"
    )


def walk(folder: Path, above: tuple[Path, ...] = ()) -> Iterator[Path]:
    """Yield all files but hidden ones, following links unless they lead back up."""
    real = folder.resolve()
    if any(real == a or real in a.parents for a in above):
        return
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir():
            yield from walk(path, (*above, real))
        elif path.is_file():
            yield path


def find_files(folder: Path, pattern: str = "*", *, but: Container[Path] = ()) -> Named:
    """Find the files below a folder, keyed by what `*` matches: for `*_L.png`, `a/b` ->
    folder/a/b_L.png. A pattern without an extension matches images of any format.

    Raises DataError if two files have the same key.
    """
    before, star, rest = pattern.partition("*")
    if not star or "*" in rest:
        raise UserError(f"--pair {pattern} must contain one *, as in '*_sat' or 'img_*'")
    after, dot, extension = rest.partition(".")
    extensions = (f".{extension.lower()}",) if dot else IMAGE_SUFFIXES
    found: Named = {}
    for path in walk(folder) if folder.is_dir() else ():
        name = composed(path.relative_to(folder))
        ending = next((e for e in extensions if name.lower().endswith(e)), None)
        if ending is None or path in but:
            continue
        parent, stem = os.path.split(name[: -len(ending)])
        middle = stem[len(before) : len(stem) - len(after)]
        if not middle or stem != before + middle + after:
            continue
        key = os.path.join(parent, middle)
        if key in found:
            raise DataError(
                f"{found[key]} and {path} have the same name: keep one, or use prepare_folder.py "
                "with --pair, such as --pair '*.jpg' '*.png'"
            )
        found[key] = path
    return found


def composed(path: Path) -> str:
    """Return a path in Unicode's composed form (NFC); macOS tools may write decomposed accents."""
    return unicodedata.normalize("NFC", path.as_posix())


def pair_up(images: Named, labels: Named, split: str) -> Split:
    """Pair images and labels of equal names, as images/<split>/<name> and labels/<split>/<name>."""
    items = [
        Item(
            images[name],
            f"images/{split}/{name}{images[name].suffix}",
            labels[name],
            f"labels/{split}/{name}.png",
        )
        for name in sorted(images.keys() & labels.keys())
    ]
    return Split(items, [*unpaired(images, labels, split)])


def without_labels(images: Named, split: str) -> Split:
    """Return the items of a test set, images/<split>/<name>."""
    names = sorted(images)
    return Split([Item(images[n], f"images/{split}/{n}{images[n].suffix}") for n in names])


def unpaired(images: Named, labels: Named, split: str) -> Iterator[str]:
    """Yield a message about images without a label, and one about labels without an image."""
    for kind, ours, other, others in (
        ("image", images, "a label", labels),
        ("label", labels, "an image", images),
    ):
        single = [path for name, path in ours.items() if name not in others]
        if single:
            count = f"{len(single)} {kind}{'s' * (len(single) > 1)}"
            yield f"{split}: {count} without {other} left out, such as {single[0]}"


def label_reader(table: Mapping[int, int], expected: str, *, as_colors: bool = False) -> Reader:
    """Return a reader that maps label files by {id or colour: id}; errors end with `expected`."""

    def read(path: Path) -> np.ndarray:
        return to_ids(read_label(path, as_colors=as_colors), table, path, expected, as_colors)

    return read


def to_ids(
    raw: np.ndarray, table: Mapping[int, int], path: Path, expected: str, is_of_colors: bool = False
) -> np.ndarray:
    """Map values (H, W) of any integer type by {value: id}, to int32.

    Raises DataError naming the file for a value that is not in the table.
    """
    known = np.array(sorted(table), np.int64)
    ids = np.array([table[value] for value in known.tolist()], np.int32)
    place = np.searchsorted(known, raw).clip(max=len(known) - 1)
    unknown = raw[known[place] != raw]
    if unknown.size:
        value = int(unknown[0])
        shown = f"colour {color_text(value)}" if is_of_colors else f"id {value}"
        count = int((unknown == value).sum())
        raise DataError(f"label {path} holds {shown} ({count} pixels): {expected}")
    return ids[place]
