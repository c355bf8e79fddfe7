"""Ids or colours as label files hold them -> class ids, on loading: DATA.label_map, ignore_ids.

No file is rewritten. What a map does not name is an error, so that a wrong map cannot go unseen.
The way back, from class ids to those that a benchmark's server wants, is TEST.export.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import yaml

from util.error import ConfigError, DataError

# labelIds 0..33 in the order of their trainIds; the others are not evaluated
# (github.com/mcordts/cityscapesScripts, helpers/labels.py).
_CITYSCAPES = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
_NAMED = {  # raw id -> class id
    "cityscapes": {raw: i for i, raw in enumerate(_CITYSCAPES)},
    "ade20k": {raw: raw - 1 for raw in range(1, 151)},
}
_VOID = {"cityscapes": range(34), "ade20k": range(1)}  # raw ids that are of no class, if not named


@dataclass(frozen=True)
class LabelMap:
    """Raw id -> class id or `ignore_label`. Without a table ids stay; `ignore_ids` are raw ids.

    `ignore_label` itself stays unless the table names it. Of colours: raw ids are r*65536+g*256+b.
    """

    ignore_label: int
    table: Mapping[int, int] = field(default_factory=dict)
    ignore_ids: Sequence[int] = ()
    is_of_colors: bool = False

    def apply(self, label: np.ndarray, path: Path) -> np.ndarray:
        """Class ids of a map of raw ids, any shape. Raises DataError for ids without a place."""
        mapped = self.lookup(label)
        if mapped is not label and mapped.min(initial=0) < 0:
            raise DataError(self._complaint(label[mapped < 0], path))
        return mapped

    def lookup(self, label: np.ndarray) -> np.ndarray:
        """Like `apply`, with -1 for ids without a place."""
        if not self.table and not self.ignore_ids:
            return label
        if label.dtype == np.uint8:
            return np.take(self._small, label, mode="clip")  # the fast mode; nothing to clip
        inside = (label >= 0) & (label < len(self._large))
        return np.where(inside, np.take(self._large, label, mode="clip"), 0) - 1

    @cached_property
    def _large(self) -> np.ndarray:
        """Class id + 1 at each raw id, 0 at ids without a place."""
        size = 2**24 if self.is_of_colors else 2**16
        if self.table:
            lookup = np.zeros(size, np.int32)  # pages that are never written take no memory
            if not self.is_of_colors and self.ignore_label < size:
                lookup[self.ignore_label] = self.ignore_label + 1
            lookup[list(self.table)] = np.array(list(self.table.values())) + 1
        else:
            lookup = np.arange(1, size + 1, dtype=np.int32)
        lookup[list(self.ignore_ids)] = self.ignore_label + 1
        return lookup

    @cached_property
    def _small(self) -> np.ndarray:
        return self._large[:256] - 1

    def _complaint(self, raw: np.ndarray, path: Path) -> str:
        ids, counts = np.unique(raw, return_counts=True)
        what, more = "id", f" and {len(ids) - 3} more" if len(ids) > 3 else ""
        names = [str(i) for i in ids[:3]]
        if self.is_of_colors:
            what, names = "colour", [color_text(int(i)) for i in ids[:3]]
        shown = ", ".join(f"{i} ({n} pixels)" for i, n in zip(names, counts[:3], strict=True))
        cure = (
            f"add a line `{names[0]} {self.ignore_label}` to that file to ignore it, or one with "
            "the id of its class"
            if self.is_of_colors
            else f"name it there, or set DATA.ignore_ids to [{names[0]}]"
        )
        return (
            f"label {path} holds {what} {shown}{more}, which DATA.label_map does not name: {cure}"
        )


def load_label_map(
    setting: str | Mapping[int, int], *, ignore_ids: Sequence[int], classes: int, ignore_label: int
) -> LabelMap:
    """The map that DATA.label_map names: '', cityscapes, ade20k, {raw: id} or a file.

    A file holds such a mapping as YAML or JSON, or, for labels that are colour images, lines
    `R G B` (the id is the line's number from 0) or `R G B id`. Raises ConfigError.
    """
    is_of_colors = False
    if isinstance(setting, str) and setting in _NAMED:
        table = dict.fromkeys(_VOID[setting], ignore_label) | _NAMED[setting]
    elif isinstance(setting, str) and setting:
        table, is_of_colors = _read_table(Path(setting))
    else:
        table = dict(setting or {})
    shown = setting if isinstance(setting, str) else "in the config"
    for raw, i in table.items():
        if not (0 <= i < classes or i == ignore_label):
            raise ConfigError(
                f"DATA.label_map {shown} gives id {i}, but ids must be 0..{classes - 1} "
                f"(DATA.classes {classes}) or {ignore_label} (TRAIN.ignore_label)"
            )
        if not 0 <= raw < (2**24 if is_of_colors else 2**16):
            raise ConfigError(f"DATA.label_map {shown} names id {raw}: labels hold 0..65535")
    if is_of_colors and ignore_ids:
        raise ConfigError(
            f"DATA.ignore_ids {list(ignore_ids)} are ids, but DATA.label_map {shown} names "
            f"colours: write {ignore_label} as the id of colours to ignore there"
        )
    for raw in ignore_ids:
        if raw >= 2**16:
            raise ConfigError(f"DATA.ignore_ids names id {raw}: labels hold 0..65535")
    return LabelMap(ignore_label, table, tuple(ignore_ids), is_of_colors)


def load_export(setting: str | Mapping[int, int], *, classes: int) -> np.ndarray | None:
    """Class id -> id to save, (classes,), as TEST.export says: '' (None), cityscapes, ade20k or
    {class id: id to save}. Raises ConfigError."""
    if not setting:
        return None
    if isinstance(setting, str):
        table = {i: raw for raw, i in _NAMED[setting].items()}
    else:
        table = dict(setting)
    shown = setting if isinstance(setting, str) else "in the config"
    if set(table) != set(range(classes)):
        raise ConfigError(
            f"TEST.export {shown} names {len(table)} classes, {min(table)}..{max(table)}, but "
            f"DATA.classes is {classes}: it must name 0..{classes - 1}, each once"
        )
    saved = np.array([table[i] for i in range(classes)])
    if saved.min() < 0 or saved.max() >= 2**16:
        raise ConfigError(
            f"TEST.export {shown} saves ids {saved.min()}..{saved.max()}: PNG files hold 0..65535"
        )
    return saved


def color_text(packed: int) -> str:
    """r*65536 + g*256 + b -> `R G B`."""
    return f"{packed >> 16} {packed >> 8 & 255} {packed & 255}"


def _read_table(path: Path) -> tuple[dict[int, int], bool]:
    """(raw id -> class id, whether raw ids are colours) of a file."""
    if not path.is_file():
        raise ConfigError(
            f"DATA.label_map: no file {path}; it may be cityscapes, ade20k, a mapping such as "
            "{0: 0, 255: 1} or a file"
        )
    wanted = (
        "a `raw id: class id` line per id, or a line `R G B` or `R G B id` per colour, none twice"
    )
    try:
        text = path.read_text(encoding="utf-8-sig")
        rows = [line.split() for line in text.splitlines() if line.strip()]
        if rows and all(len(row) in (3, 4) and all(w.isdigit() for w in row) for row in rows):
            return _color_table(rows), True
        table = yaml.safe_load(text)
        assert isinstance(table, dict) and table
        # JSON has its keys as text
        return {int(str(raw)): int(str(i)) for raw, i in table.items()}, False
    except (UnicodeDecodeError, yaml.YAMLError, AssertionError, ValueError):
        raise ConfigError(f"DATA.label_map {path} must hold {wanted}") from None


def _color_table(rows: list[list[str]]) -> dict[int, int]:
    table = {}
    for number, row in enumerate(rows):
        red, green, blue, *given = map(int, row)
        packed = red << 16 | green << 8 | blue
        if max(red, green, blue) > 255 or packed in table:  # a colour cannot mean two classes
            raise ValueError
        table[packed] = given[0] if given else number
    return table
