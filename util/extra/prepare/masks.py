"""The contents of masks, and the user's description of their classes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from util.data.coding import LabelFacts, check_coding, facts_of
from util.data.file import read_header
from util.data.label import decode_label
from util.data.label_map import LabelMap
from util.error import DataError, UserError, read_text, show
from util.extra.prepare.files import VOID

MOST_CLASSES = 255  # ids 0..254; 255 is VOID
MOST_LEVELS = 16
RARE = 0.02  # maximum share of pixels of a value that only occurs at smoothed edges


@dataclass(frozen=True)
class Mask:
    """A mask file: its kind (ids, gray colors, palette, colors), and value -> colour 0xRRGGBB."""

    facts: LabelFacts
    kind: str
    values: dict[int, int]

    @property
    def path(self) -> Path:
        """The path of the file."""
        return self.facts.path


@dataclass(frozen=True)
class Given:
    """The user's colours and names by class id, each possibly empty, and the colours of void."""

    colors: list[int]
    names: list[str]
    void: list[int]


def scan_mask(path: Path) -> Mask:
    """Read the values of a mask. Raises DataError if the file cannot be a mask."""
    label = decode_label(path)
    facts = facts_of(label)
    values = list(facts.ids)
    if len(values) > MOST_CLASSES + 1 or is_smoothed(label.raw):
        raise DataError(
            f"mask {path} holds {len(values)} different values, like a photo or smoothed edges: "
            "save masks as PNG without smoothing"
        )
    if label.palette:
        return Mask(facts, "palette", label.palette)
    if label.kind == "colors":
        return Mask(facts, "colors", {value: value for value in values})
    kind = "gray colors" if read_header(path).mode.startswith("RGB") else "ids"
    return Mask(facts, kind, {value: value * 0x010101 for value in values})


def check_masks(masks: Sequence[Mask], classes: int, *, is_255_assumed: bool, fix: str) -> None:
    """Raise DataError if masks of ids are coded differently from the rest.

    `is_255_assumed`: 255 counts as void without the user's word; `fix` says how to give it.
    """
    facts = [mask.facts for mask in masks]
    again = "save it again like the others"
    check_coding(facts, LabelMap(classes, VOID, ignore_ids=(VOID,)), what="mask", fix=again)
    if is_255_assumed:
        fix = f"{again}, with class ids, or give {fix} if 255 is unlabelled"
        check_coding(facts, LabelMap(classes, VOID), what="mask", fix=fix)


def spread_levels(values: Iterable[int]) -> bool:
    """Whether 3 to 16 values are spread evenly over 0..255, such as 0, 128, 255."""
    found = sorted(set(values))
    if not 3 <= len(found) <= MOST_LEVELS:
        return False
    return bool(np.abs(found - np.linspace(0, 255, len(found))).max() < 2)


def is_smoothed(label: np.ndarray) -> bool:
    """Whether a mask (H, W) of gray levels or colours 0xRRGGBB has blurred edges.

    It does if it has three or more rare values and nearly all their pixels lie between a darker
    and a lighter neighbour.
    """
    values, counts = np.unique(label, return_counts=True)
    rare = values[counts < RARE * label.size]
    if len(rare) < 3:
        return False
    channels = (
        [label] if label.dtype == np.uint8 else [label >> shift & 255 for shift in (16, 8, 0)]
    )
    between = np.zeros(label.shape, bool)
    for channel in channels:
        channel = channel.astype(np.uint8)
        low, high = (morph(channel, np.ones((3, 3), np.uint8)) for morph in (cv2.erode, cv2.dilate))
        between |= (low < channel) & (channel < high)
    return bool(between[np.isin(label, rare)].mean() > 0.9)


def read_class_file(colors_path: Path | None, names_path: Path | None) -> Given:
    """Read `R G B [name]` lines and class names. Raises UserError for any other line."""
    colors, names, void = [], [], []
    for number, line in enumerate(read_lines("--colors", colors_path), 1):
        words = line.split(None, 3)
        code, name = read_color(words[:3]), " ".join(words[3:])
        if code is None:
            raise UserError(
                f"--colors {colors_path} line {number} is '{line}': write `R G B` or `R G B name` "
                "with numbers 0..255"
            )
        if code in colors or code in void:
            raise UserError(f"--colors {colors_path} line {number} repeats {line}: remove one")
        if name.lower() == "void":
            void.append(code)
            continue
        colors.append(code)
        names.append(name)
    named = read_lines("--names", names_path) or (names if all(names) else [])
    where = f"--names {names_path}" if names_path else f"--colors {colors_path}"
    for name in named:
        if name.startswith("#"):
            raise UserError(f"{where} has the class '{show(name)}': remove the line if a comment")
        if named.count(name) > 1:
            raise UserError(f"{where} has two classes '{show(name)}': list each of them once")
    if named and colors and len(named) != len(colors):
        raise UserError(
            f"--names {names_path} holds {len(named)} names, but --colors {colors_path} "
            f"{len(colors)} colours: give one line per class in both, in order of ids"
        )
    return Given(colors, named, void)


def read_lines(option: str, path: Path | None) -> list[str]:
    """Read the non-blank lines of a file; none if `path` is None. Raises UserError."""
    if path is None:
        return []
    if not path.is_file():
        raise UserError(f"{option}: no file {path}")
    return [line.strip() for line in read_text(path, UserError).splitlines() if line.strip()]


def read_color(words: Sequence[str]) -> int | None:
    """Parse the words R, G, B to 0xRRGGBB; None for anything else."""
    if len(words) != 3 or not all(w.isascii() and w.isdecimal() and len(w) < 4 for w in words):
        return None
    red, green, blue = map(int, words)
    return red << 16 | green << 8 | blue if max(red, green, blue) <= 255 else None
