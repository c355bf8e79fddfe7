"""Raw data -> what a plan is made of: folders found, files paired, values turned into ids."""

import os
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from util.data.image import IMAGE_SUFFIXES, read_label
from util.error import DataError

VOID = 255
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
        return f"{self.image_name} {self.label_name}".rstrip()


def find_root(
    source: Path,
    folders: Sequence[str],
    *,
    below: Sequence[str] = (),
    example: str,
    option: str = "--source",
) -> Path:
    """`source`, or the folder `below` it, that holds all `folders`.

    Raises DataError that names what is missing, with the path of an `example` file.
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


def files_by_stem(folder: Path, ending: str | Sequence[str] = IMAGE_SUFFIXES) -> dict[str, Path]:
    """`a/b` -> folder/a/b<ending>, in order of the stems, which are in Unicode's composed form.

    Of a folder that is not there, nothing. Raises DataError when two files have one stem.
    """
    endings = (ending,) if isinstance(ending, str) else tuple(ending)
    found: dict[str, Path] = {}
    for path in walk(folder) if folder.is_dir() else ():
        name = unicodedata.normalize("NFC", path.relative_to(folder).as_posix())
        fit = next((e for e in endings if name.lower().endswith(e.lower())), None)
        if fit is None:
            continue
        stem = name[: -len(fit)]
        if stem in found:
            raise DataError(f"{found[stem]} and {path} differ only in their extension: keep one")
        found[stem] = path
    return dict(sorted(found.items()))


def walk(folder: Path, above: tuple[Path, ...] = ()) -> Iterator[Path]:
    """All files but hidden ones, also of linked folders, except links that lead back up."""
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


def pair_up(
    images: Mapping[str, Path],
    labels: Mapping[str, Path],
    split: str,
    *,
    label_folder: str = "labels",
) -> tuple[list[Item], list[str]]:
    """Items of the stems that have image and label, named images/<split>/<stem> and
    <label_folder>/<split>/<stem>; sentences on those that have one of the two."""
    items = [
        Item(
            path,
            os.path.join("images", split, stem + path.suffix),
            labels[stem],
            os.path.join(label_folder, split, f"{stem}.png"),
        )
        for stem, path in images.items()
        if stem in labels
    ]
    return items, [*unpaired(images, labels, split)]


def unpaired(images: Mapping[str, Path], labels: Mapping[str, Path], split: str) -> Iterator[str]:
    """A sentence on the images without label, one on the labels without image."""
    for kind, ours, other, others in (
        ("image", images, "label", labels),
        ("label", labels, "image", images),
    ):
        single = [path for stem, path in ours.items() if stem not in others]
        if single:
            count = f"{len(single)} {kind}{'s' * (len(single) > 1)}"
            yield f"{split}: {count} without {other} left out, such as {single[0]}"


def translate(codes: np.ndarray, table: Mapping[int, int]) -> np.ndarray:
    """Values (H, W) of any integer type through {value: id}: (H, W) int32, -1 where not in it."""
    known = np.array(sorted(table), np.int64)
    ids = np.array([table[code] for code in known.tolist()], np.int32)
    place = np.searchsorted(known, codes).clip(max=len(known) - 1)
    return np.where(known[place] == codes, ids[place], np.int32(-1))


def id_reader(table: Mapping[int, int], expected: str) -> Reader:
    """A reader of one-channel files through {raw id: id}; `expected` ends its error message."""

    def read(path: Path) -> np.ndarray:
        raw = read_label(path)
        ids = translate(raw, table)
        if ids.min() < 0:
            value = int(raw[ids < 0][0])
            count = int((raw == value).sum())
            raise DataError(f"label {path} holds id {value} ({count} pixels): {expected}")
        return ids

    return read
