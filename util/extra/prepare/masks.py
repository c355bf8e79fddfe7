"""What masks hold, and what the user says of their classes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from util.data.image import image_info
from util.data.label import decode_label
from util.error import DataError, UserError
from util.extra.mask_levels import is_smoothed

MOST_CLASSES = 255  # ids 0..254; 255 is VOID


@dataclass(frozen=True)
class Mask:
    """The kind of a file (ids, palette, colors) and {value in it: colour it shows, 0xRRGGBB}."""

    path: Path
    kind: str
    values: dict[int, int]


@dataclass(frozen=True)
class Given:
    """What the user says of the classes: each by id, or empty; `void` are colours."""

    colors: list[int]
    names: list[str]
    void: list[int]


def scan_mask(path: Path) -> Mask:
    """What a file holds. Raises DataError where it cannot be a mask."""
    label = decode_label(path)
    values = np.unique(label.raw).tolist()
    if len(values) > MOST_CLASSES + 1 or is_smoothed(label.raw):
        raise DataError(
            f"mask {path} holds {len(values)} different values: is it a photo, or were its edges "
            "smoothed? save masks as PNG without smoothing"
        )
    if label.palette:
        return Mask(path, "palette", {value: label.palette[value] for value in values})
    if label.kind == "colors":
        return Mask(path, "colors", {value: value for value in values})
    kind = "gray colors" if image_info(path)[0].startswith("RGB") else "ids"
    return Mask(path, kind, {value: value * 0x010101 for value in values})


def read_class_file(colors_path: Path | None, names_path: Path | None) -> Given:
    """`R G B [name]` lines and name lines. Raises UserError for anything else."""
    colors, names, void = [], [], []
    for number, line in enumerate(read_lines("--colors", colors_path), 1):
        words = line.split(None, 3)
        code, name = read_color(words[:3]), " ".join(words[3:])
        if code is None:
            raise UserError(
                f"--colors {colors_path} line {number} is '{line}': it must be `R G B` or `R G B "
                "name`, each number 0..255"
            )
        if code in colors or code in void:
            raise UserError(f"--colors {colors_path} line {number} repeats {line}: remove one")
        if name.lower() == "void":
            void.append(code)
            continue
        colors.append(code)
        names.append(name)
    named = read_lines("--names", names_path) or (names if all(names) else [])
    if named and colors and len(named) != len(colors):
        raise UserError(
            f"--names {names_path} holds {len(named)} names, --colors {colors_path} {len(colors)} "
            "colours: one a line in both, in order of ids"
        )
    return Given(colors, named, void)


def read_lines(option: str, path: Path | None) -> list[str]:
    """The lines of a file that are not blank. Raises UserError."""
    if path is None:
        return []
    if not path.is_file():
        raise UserError(f"{option}: no file {path}")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{option}: {path} is not a text file in UTF-8: save it as UTF-8") from None
    return [line.strip() for line in text.splitlines() if line.strip()]


def read_color(words: Sequence[str]) -> int | None:
    """R, G, B as text -> 0xRRGGBB; None for anything else."""
    if len(words) != 3 or not all(w.isascii() and w.isdecimal() and len(w) < 4 for w in words):
        return None
    rgb = [int(word) for word in words]
    return rgb[0] << 16 | rgb[1] << 8 | rgb[2] if max(rgb) <= 255 else None
