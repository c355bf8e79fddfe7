"""Masks of unknown making -> classes: ids, palettes or colours, given or discovered."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from util.data.image import image_info, read_label
from util.data.label_map import color_text
from util.error import DataError, UserError
from util.extra.prepare.raw import VOID, translate
from util.palette import distinct_colors

MOST_CLASSES = 255  # ids 0..254; 255 is VOID


@dataclass(frozen=True)
class Mask:
    """The kind of a file (ids, palette, colors) and {value in it: colour it shows, 0xRRGGBB}."""

    path: Path
    kind: str
    values: dict[int, int]


@dataclass(frozen=True)
class Given:
    """What the user says of the classes, each by id or empty; `void` are colours."""

    colors: list[int]
    names: list[str]
    void: list[int]


@dataclass(frozen=True)
class Classes:
    """Names and colours (C, 3) by id; {value in a mask: id}; whether values are colours."""

    names: list[str]
    colors: np.ndarray
    table: dict[int, int]
    is_of_colors: bool

    def read(self, path: Path) -> np.ndarray:
        """Ids (H, W) of a mask whose values are all in the table."""
        return translate(read_label(path, as_colors=self.is_of_colors), self.table)


def scan_mask(path: Path) -> Mask:
    """What a file holds. Raises DataError where it cannot be a mask."""
    if path.suffix.lower() in (".jpg", ".jpeg"):
        raise DataError(f"mask {path} is a JPEG file, which blurs values: masks must be PNG")
    mode, _, _ = image_info(path)
    kind = "palette" if mode == "P" else "ids" if mode[0] in "1LI" and mode != "LA" else "colors"
    shown = read_label(path, as_colors=True) if kind != "ids" else None
    raw = shown if kind == "colors" else read_label(path)
    values, first = np.unique(raw, return_index=True)
    if len(values) > MOST_CLASSES + 1:
        raise DataError(
            f"mask {path} holds {len(values)} different values: is it a photo, or were its edges "
            "smoothed? save masks as PNG without smoothing"
        )
    colors = values if shown is None else shown.ravel()[first]
    return Mask(path, kind, dict(zip(values.tolist(), colors.tolist(), strict=True)))


def read_class_file(colors_path: Path | None, names_path: Path | None) -> Given:
    """`R G B [name]` lines and name lines. Raises UserError for anything else."""
    colors, names, void = [], [], []
    for number, line in enumerate(_lines(colors_path, "--colors"), 1):
        words = line.split(None, 3)
        rgb, name = words[:3], " ".join(words[3:])
        if len(rgb) != 3 or not all(v.isdigit() and int(v) <= 255 for v in rgb):
            raise UserError(
                f"--colors {colors_path} line {number} is '{line}': must be `R G B` or `R G B "
                "name`, each number 0..255"
            )
        code = int(rgb[0]) << 16 | int(rgb[1]) << 8 | int(rgb[2])
        if code in colors or code in void:
            raise UserError(f"--colors {colors_path} line {number}: {line} stands there twice")
        if name.lower() == "void":
            void.append(code)
            continue
        colors.append(code)
        names.append(name)
    named = _lines(names_path, "--names") or (names if all(names) else [])
    if named and colors and len(named) != len(colors):
        raise UserError(
            f"--names {names_path} holds {len(named)} names, --colors {colors_path} {len(colors)} "
            "colours: one a line in both, in order of ids"
        )
    return Given(colors, named, void)


def find_classes(masks: Sequence[Mask], given: Given, void: Sequence[str]) -> Classes:
    """The classes of all masks together. Raises DataError for values that no class has."""
    is_of_colors = _are_colors(masks)
    found: dict[int, int] = {}
    for mask in masks:
        found |= {c: c for c in mask.values.values()} if is_of_colors else mask.values
    ignored = [_void_value(text, is_of_colors) for text in void]
    if is_of_colors and given.colors:
        values, ignored = given.colors, [*ignored, *given.void]
    elif (given.colors or given.names) and not is_of_colors:
        values = list(range(len(given.colors or given.names)))
    else:
        values = sorted(set(found) - set(ignored))
    if not is_of_colors and VOID not in ignored:
        if len(values) == 2 and set(found) == {0, VOID}:
            values = [0, VOID]
        elif VOID in values and len(values) > 2:
            values.remove(VOID)
        if VOID not in values:
            ignored.append(VOID)
    _check_count(masks, values, given)
    table = {value: i for i, value in enumerate(values)} | dict.fromkeys(ignored, VOID)
    _check_known(masks, table, is_of_colors)
    colors = _class_colors(masks, values, found, given, is_of_colors)
    kind = "color" if is_of_colors else "class"
    names = given.names or [f"{kind} {_text(value, is_of_colors)}" for value in values]
    return Classes(names, colors, table, is_of_colors)


def _lines(path: Path | None, option: str) -> list[str]:
    if path is None:
        return []
    if not path.is_file():
        raise UserError(f"{option}: no file {path}")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{option}: {path} is not a text file in UTF-8") from None
    return [line.strip() for line in text.splitlines() if line.strip()]


def _are_colors(masks: Sequence[Mask]) -> bool:
    """Whether colours, not ids, tell the class: colour files, or palettes that contradict."""
    first = {mask.kind: mask for mask in reversed(masks)}
    shown: dict[int, int] = {}
    contradict = False
    for mask in masks:
        if mask.kind == "palette":
            contradict |= any(shown.setdefault(i, c) != c for i, c in mask.values.items())
    if "ids" in first and ("colors" in first or contradict):
        other = first.get("colors") or first["palette"]
        raise DataError(
            f"mask {first['ids'].path} holds ids, {other.path} holds colours: all masks must be of "
            "one kind"
        )
    return "colors" in first or contradict


def _void_value(text: str, is_of_colors: bool) -> int:
    numbers = text.split(",")
    if len(numbers) != (3 if is_of_colors else 1) or not all(n.strip().isdigit() for n in numbers):
        wanted = "colours: R,G,B such as 0,0,0" if is_of_colors else "ids: a number such as 0"
        raise UserError(f"--void {text}: these masks hold {wanted}")
    value = 0
    for number in numbers:
        value = value << 8 | int(number)
    return value


def _check_count(masks: Sequence[Mask], values: Sequence[int], given: Given) -> None:
    where = f"masks such as {masks[0].path} hold"
    if len(values) < 2:
        raise DataError(f"{where} {len(values)} classes besides void: at least 2 are needed")
    if len(values) > MOST_CLASSES:
        raise DataError(
            f"{where} {len(values)} different values, at most {MOST_CLASSES} can be classes: are "
            "they photos, or smoothed? --colors FILE names the colours that are meant"
        )
    if given.names and len(given.names) != len(values):
        raise DataError(f"{where} {len(values)} colours, --names {len(given.names)} names")


def _check_known(masks: Sequence[Mask], table: dict[int, int], is_of_colors: bool) -> None:
    for mask in masks:
        for value in mask.values.values() if is_of_colors else mask.values:
            if value not in table:
                shown = _text(value, is_of_colors)
                kind, void = ("colour", shown.replace(" ", ",")) if is_of_colors else ("id", shown)
                raise DataError(
                    f"mask {mask.path} holds {kind} {shown}, which --colors or --names has no line "
                    f"for: add one, or --void {void} if it is unlabeled"
                )


def _class_colors(
    masks: Sequence[Mask],
    values: Sequence[int],
    found: dict[int, int],
    given: Given,
    is_of_colors: bool,
) -> np.ndarray:
    """(C, 3) uint8 to show classes in: given, the masks' own, else made up."""
    codes = given.colors
    if is_of_colors and not codes:
        codes = list(values)
    if not codes and all(mask.kind == "palette" for mask in masks) and set(values) <= set(found):
        codes = [found[value] for value in values]
    if not codes:
        return distinct_colors(len(values))
    return np.array([(c >> 16, c >> 8 & 255, c & 255) for c in codes], np.uint8)


def _text(value: int, is_of_colors: bool) -> str:
    return color_text(value) if is_of_colors else str(value)
