"""Map the ids or colours of label files to class ids on loading: DATA.label_map and ignore_ids.

No file is rewritten. Unmapped ids are an error, so that a wrong map cannot go unnoticed.
TEST.export does the reverse: it maps class ids to those that a benchmark server expects.
"""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from util.config import Config
from util.data.cause import Cause, probable_cause
from util.data.id_table import color_text, read_table
from util.data.label import count_ids, pack_colors
from util.error import ConfigError, DataError
from util.palette import load_colors

# The evaluated ones of labelIds 0..33, in the order of their trainIds
# (github.com/mcordts/cityscapesScripts, helpers/labels.py).
_CITYSCAPES = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
_NAMED = {  # raw id -> class id
    "cityscapes": {raw: i for i, raw in enumerate(_CITYSCAPES)},
    "ade20k": {raw: raw - 1 for raw in range(1, 151)},
}
_VOID = {"cityscapes": range(-1, 34), "ade20k": range(1)}  # raw ids, ignored unless in _NAMED
_LOWEST, _HIGHEST = -(2**15), 2**16 - 1  # range of signed and unsigned 16-bit ids


@dataclass(frozen=True)
class LabelMap:
    """Raw id -> class id 0..classes-1 or `ignore_label`; ids are kept if there is no table.

    `ignore_ids` are raw ids. `ignore_label` itself is kept unless the table maps it or is one of
    the named ones, whose raw files do not hold it. Raw ids of colours (`is_of_colors`) are
    r*65536 + g*256 + b. `colors` are the class colours in that form, () if unknown. `source` is
    the name of the table or the path of its file.
    """

    classes: int
    ignore_label: int
    table: Mapping[int, int] = field(default_factory=dict)
    ignore_ids: Sequence[int] = ()
    is_of_colors: bool = False
    colors: Sequence[int] = ()
    source: str = ""

    def apply(self, label: np.ndarray, path: Path) -> np.ndarray:
        """Map raw ids (H, W) to class ids. Raises DataError for invalid ids."""
        mapped = self.lookup(label)
        wrong = (mapped >= self.classes) | (mapped < 0)
        wrong &= mapped != self.ignore_label
        if wrong.any():
            raise DataError(f"label {path} {self._complaint(count_ids(label))}")
        return mapped

    def lookup(self, label: np.ndarray) -> np.ndarray:
        """Map raw ids, unchecked: those missing in a table become -1; without a table all stay."""
        if not self.table and not self.ignore_ids:
            return label
        if label.dtype == np.uint8:
            return np.take(self._small, label, mode="clip")  # the fastest mode; nothing is clipped
        return np.take(self._large, label - self._first, mode="clip") - 1

    @property
    def _first(self) -> int:
        """The raw id of the first entry of `_large`, which no file holds."""
        return -1 if self.is_of_colors else _LOWEST - 1

    @cached_property
    def _large(self) -> np.ndarray:
        """Class id + 1 for each raw id; 0 for unmapped ids, including both end entries."""
        size = 2**24 if self.is_of_colors else _HIGHEST + 1 - _LOWEST
        large = np.zeros(size + 2, np.int32)  # pages never written take no memory
        if not self.table:
            large[1:-1] = np.arange(size) + _LOWEST + 1
        elif not self.is_of_colors and self.ignore_label <= _HIGHEST and self.source not in _NAMED:
            large[self.ignore_label - self._first] = self.ignore_label + 1
        named = dict(self.table) | dict.fromkeys(self.ignore_ids, self.ignore_label)
        for raw, i in named.items():
            large[raw - self._first] = i + 1
        return large

    @cached_property
    def _small(self) -> np.ndarray:
        return self._large[-self._first :][:256] - 1

    def classes_of(self, raw: Iterable[int]) -> dict[int, int]:
        """Return {raw id: class id}, as `lookup` maps them."""
        raw = sorted(raw)
        return dict(zip(raw, self.lookup(np.array(raw, np.int64)).tolist(), strict=True))

    def wrong_ids(self, raw: Iterable[int]) -> list[int]:
        """Return the raw ids that map neither to a class nor to `ignore_label`, sorted."""
        return [
            i
            for i, class_id in self.classes_of(raw).items()
            if not 0 <= class_id < self.classes and class_id != self.ignore_label
        ]

    def are_void(self, raw: Iterable[int]) -> bool:
        """Whether all of these raw ids are ignored; False if there are none."""
        return set(self.classes_of(raw).values()) == {self.ignore_label}

    def text(self, raw: int) -> str:
        """Format a raw id as in a label map file."""
        return color_text(raw) if self.is_of_colors else str(raw)

    def cause(self, found: Mapping[int, int]) -> Cause:
        """Return why some of the raw ids (id -> pixels) are wrong."""
        wrong = self.wrong_ids(found)
        ignoring = f"DATA.ignore_ids: {sorted({*self.ignore_ids, *wrong})}"
        if self.is_of_colors:
            lines = " ".join(f"'{color_text(i)} {self.ignore_label}'" for i in wrong)
            fix = f"printf '\\n%s' {lines} >> {shlex.quote(self.source)}"
            return Cause("unnamed-colours", "not in DATA.label_map", fix)
        if self.source in _NAMED and self.ignore_label in wrong:
            looks_like = f"looks like class ids, not raw ids of {self.source}"
            return Cause("converted-ids", looks_like, "DATA.label_map: ''")
        if self.table:
            return Cause("unnamed-ids", "not in DATA.label_map", ignoring)
        others = {i: pixels for i, pixels in found.items() if i not in self.ignore_ids}
        cause = probable_cause(
            others, classes=self.classes, ignore_label=self.ignore_label, colors=self.colors
        )
        if cause.kind == "void-id" and self.ignore_ids:
            return replace(cause, fix=ignoring)
        return cause

    def _complaint(self, found: Mapping[int, int]) -> str:
        wrong, cause = self.wrong_ids(found), self.cause(found)
        shown = ", ".join(f"{self.text(i)} ({found[i]} pixels)" for i in wrong[:4])
        more = f" and {len(wrong) - 4} more" if len(wrong) > 4 else ""
        holds = f"holds {'colour' if self.is_of_colors else 'id'} {shown}{more}"
        if self.is_of_colors:
            return (
                f"{holds}, which DATA.label_map does not map: add a line `{self.text(wrong[0])} "
                f"{self.ignore_label}` to that file to ignore it, or one with its class id"
            )
        if cause.kind == "unnamed-ids":
            return f"{holds}, which DATA.label_map does not map: add it there, or set {cause.fix}"
        if self.table:
            return f"{holds}, so it {cause.looks_like}: set {cause.fix}"
        fix = f"set {cause.fix}" if cause.fix.startswith("DATA.") else cause.fix
        return (
            f"{holds}: ids must be 0..{self.classes - 1} (DATA.classes {self.classes}) or "
            f"{self.ignore_label} (TRAIN.ignore_label); {cause.looks_like}: {fix}"
        )


def label_map_of(cfg: Config) -> LabelMap:
    """Return the label map of a config. Raises ConfigError."""
    colors = ()
    if cfg.colors_path:
        with suppress(ConfigError):  # raised when drawing; here colours only check palettes
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
    """Load the map for a DATA.label_map of '', cityscapes, ade20k, {raw id: class id} or a file.

    A file holds a mapping as YAML or JSON, where raw ids may be ranges (`0-127: 0`), or, for
    colour-coded labels, lines `R G B` (the class id is the line number, from 0) or `R G B id`.
    Raises ConfigError.
    """
    is_of_colors, shown = False, setting if isinstance(setting, str) else "in the config"
    if isinstance(setting, str) and setting in _NAMED:
        table = dict.fromkeys(_VOID[setting], ignore_label) | _NAMED[setting]
    elif isinstance(setting, str) and setting:
        table, is_of_colors = read_table(Path(setting))
    else:
        table = dict(setting or {})
    for class_id in table.values():
        if not (0 <= class_id < classes or class_id == ignore_label):
            raise ConfigError(
                f"DATA.label_map {shown} maps to id {class_id}, but ids must be 0..{classes - 1} "
                f"(DATA.classes {classes}) or {ignore_label} (TRAIN.ignore_label)"
            )
    for key, ids in ((f"DATA.label_map {shown}", table), ("DATA.ignore_ids", ignore_ids)):
        for raw in ids:
            if not (_LOWEST <= raw <= _HIGHEST or is_of_colors):
                raise ConfigError(f"{key} lists id {raw}, but labels hold {_LOWEST}..{_HIGHEST}")
    if is_of_colors and ignore_ids:
        raise ConfigError(
            f"DATA.ignore_ids {list(ignore_ids)} are ids, but DATA.label_map {shown} lists "
            f"colours: ignore colours by giving them id {ignore_label} there"
        )
    ignored, colors = tuple(ignore_ids), tuple(colors)
    return LabelMap(classes, ignore_label, table, ignored, is_of_colors, colors, shown)


def load_export(setting: str | Mapping[int, int], *, classes: int) -> np.ndarray | None:
    """Return the id to save for each class, (classes,), or None if TEST.export is empty.

    `setting` is '', cityscapes, ade20k or {class id: id to save}. Raises ConfigError.
    """
    if not setting:
        return None
    if isinstance(setting, str):
        table = {i: raw for raw, i in _NAMED[setting].items()}
    else:
        table = dict(setting)
    shown = setting if isinstance(setting, str) else "in the config"
    if set(table) != set(range(classes)):
        raise ConfigError(
            f"TEST.export {shown} maps {len(table)} classes, {min(table)}..{max(table)}, but "
            f"DATA.classes is {classes}: it must map 0..{classes - 1}, each once"
        )
    saved = np.array([table[i] for i in range(classes)])
    if saved.min() < 0 or saved.max() >= 2**16:
        raise ConfigError(
            f"TEST.export {shown} saves ids {saved.min()}..{saved.max()}: PNG files hold 0..65535"
        )
    return saved
