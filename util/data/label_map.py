"""Ids or colours as label files hold them -> class ids, on loading: DATA.label_map, ignore_ids.

No file is rewritten. What a map does not name is an error, so that a wrong map cannot go unseen.
The way back, from class ids to those that a benchmark's server wants, is TEST.export.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from util.config import Config
from util.data.cause import probable_cause
from util.data.id_table import color_text, read_table
from util.data.label import pack_colors
from util.error import ConfigError, DataError
from util.palette import load_colors

# labelIds 0..33 in the order of their trainIds; the others are not evaluated
# (github.com/mcordts/cityscapesScripts, helpers/labels.py).
_CITYSCAPES = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
_NAMED = {  # raw id -> class id
    "cityscapes": {raw: i for i, raw in enumerate(_CITYSCAPES)},
    "ade20k": {raw: raw - 1 for raw in range(1, 151)},
}
_VOID = {"cityscapes": range(-1, 34), "ade20k": range(1)}  # raw ids of no class, if not named
_LOWEST, _HIGHEST = -(2**15), 2**16 - 1  # ids that files of 16 bits hold


@dataclass(frozen=True)
class LabelMap:
    """Raw id -> class id 0..classes-1 or `ignore_label`. Without a table ids stay.

    `ignore_ids` are raw ids. `ignore_label` itself stays unless the table names it. Of colours, raw
    ids are r*65536 + g*256 + b. `colors` (so too) are those of the classes, () where not known.
    """

    classes: int
    ignore_label: int
    table: Mapping[int, int] = field(default_factory=dict)
    ignore_ids: Sequence[int] = ()
    is_of_colors: bool = False
    colors: Sequence[int] = ()

    def apply(self, label: np.ndarray, path: Path) -> np.ndarray:
        """Class ids of a map of raw ids (H, W). Raises DataError for ids without a place."""
        mapped = self.lookup(label)
        if mapped is not label and mapped.min(initial=0) < 0:
            raise DataError(self._complaint(label[mapped < 0], path))
        check_label(mapped, path, classes=self.classes, ignore_label=self.ignore_label)
        return mapped

    def lookup(self, label: np.ndarray) -> np.ndarray:
        """Like `apply`, with -1 for ids without a place; ids that no table names stay."""
        if not self.table and not self.ignore_ids:
            return label
        if label.dtype == np.uint8:
            return np.take(self._small, label, mode="clip")  # the fast mode; nothing to clip
        inside = (label >= 0) & (label < len(self._large))
        mapped = np.where(inside, np.take(self._large, label, mode="clip"), 0) - 1
        for raw in {*self.table, *self.ignore_ids}:
            if raw < 0:
                mapped[label == raw] = self._class_of(raw)
        return mapped

    def _class_of(self, raw: int) -> int:
        return self.ignore_label if raw in self.ignore_ids else self.table[raw]

    @cached_property
    def _large(self) -> np.ndarray:
        """Class id + 1 at each raw id, 0 at ids without a place."""
        size = 2**24 if self.is_of_colors else 2**16
        if self.table:
            lookup = np.zeros(size, np.int32)  # pages that are never written take no memory
            if not self.is_of_colors and self.ignore_label < size:
                lookup[self.ignore_label] = self.ignore_label + 1
        else:
            lookup = np.arange(1, size + 1, dtype=np.int32)
        for raw in {*self.table, *self.ignore_ids}:
            if raw >= 0:
                lookup[raw] = self._class_of(raw) + 1
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
        fix = (
            f"add a line `{names[0]} {self.ignore_label}` to that file to ignore it, or one with "
            "the id of its class"
            if self.is_of_colors
            else f"name it there, or set DATA.ignore_ids to [{names[0]}]"
        )
        return f"label {path} holds {what} {shown}{more}, which DATA.label_map does not name: {fix}"


def check_label(label: np.ndarray, path: Path, *, classes: int, ignore_label: int) -> None:
    """Raise DataError naming file, id and pixel count if an id is not 0..classes-1 or ignored."""
    wrong = (label >= classes) | (label < 0)
    wrong &= label != ignore_label
    if not wrong.any():
        return
    ids, counts = np.unique(label, return_counts=True)
    found = dict(zip(ids.tolist(), counts.tolist(), strict=True))
    bad = [i for i in found if not 0 <= i < classes and i != ignore_label]
    shown = ", ".join(f"{i} ({found[i]} pixels)" for i in bad[:4])
    more = f" and {len(bad) - 4} more ids" if len(bad) > 4 else ""
    cause = probable_cause(found, classes=classes, ignore_label=ignore_label)
    assert cause is not None
    raise DataError(
        f"label {path} holds id {shown}{more}: ids must be 0..{classes - 1} (DATA.classes "
        f"{classes}) or {ignore_label} (TRAIN.ignore_label); {cause.looks_like}: set {cause.fix}"
    )


def label_map_of(cfg: Config) -> LabelMap:
    """The map that a config describes. Raises ConfigError."""
    colors = ()
    if cfg.colors_path:
        with suppress(ConfigError):  # raised where they are drawn; here they only check palettes
            colors = pack_colors(load_colors(cfg.colors_path, cfg.classes)).tolist()
    return load_label_map(
        cfg.label_map,
        ignore_ids=cfg.ignore_ids,
        classes=cfg.classes,
        ignore_label=cfg.ignore_label,
        colors=colors,
    )


def load_label_map(
    setting: str | Mapping[int, int],
    *,
    ignore_ids: Sequence[int] = (),
    classes: int,
    ignore_label: int,
    colors: Sequence[int] = (),
) -> LabelMap:
    """The map that DATA.label_map names: '', cityscapes, ade20k, {raw: id} or a file.

    A file holds such a mapping as YAML or JSON, where raw ids may be a range (`0-127: 0`), or, for
    labels that are colour images, lines `R G B` (the id is the line's number from 0) or `R G B id`.
    Raises ConfigError.
    """
    is_of_colors, shown = False, setting if isinstance(setting, str) else "in the config"
    if isinstance(setting, str) and setting in _NAMED:
        table = dict.fromkeys(_VOID[setting], ignore_label) | _NAMED[setting]
    elif isinstance(setting, str) and setting:
        table, is_of_colors = read_table(Path(setting))
    else:
        table = dict(setting or {})
    for i in table.values():
        if not (0 <= i < classes or i == ignore_label):
            raise ConfigError(
                f"DATA.label_map {shown} gives id {i}, but ids must be 0..{classes - 1} "
                f"(DATA.classes {classes}) or {ignore_label} (TRAIN.ignore_label)"
            )
    for key, ids in ((f"DATA.label_map {shown}", table), ("DATA.ignore_ids", ignore_ids)):
        for raw in ids:
            if not (_LOWEST <= raw <= _HIGHEST or is_of_colors):
                raise ConfigError(f"{key} names id {raw}: labels hold {_LOWEST}..{_HIGHEST}")
    if is_of_colors and ignore_ids:
        raise ConfigError(
            f"DATA.ignore_ids {list(ignore_ids)} are ids, but DATA.label_map {shown} names "
            f"colours: write {ignore_label} as the id of colours to ignore there"
        )
    return LabelMap(classes, ignore_label, table, tuple(ignore_ids), is_of_colors, tuple(colors))


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
