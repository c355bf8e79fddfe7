"""Consistency of a dataset's labels: find the files that are coded differently from the rest.

The dataset check compares all labels. The loaders compare the first ones, and each label that is
stored differently from the very first.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from util.data.label import Label, count_ids
from util.data.label_map import LabelMap, color_text
from util.error import DataError


@dataclass(frozen=True)
class LabelFacts:
    """How a label is stored and what it holds.

    `ids` maps raw ids to pixel counts, `palette` used indices to colours, and `halves` each half of
    the image that holds a single id to that id.
    """

    path: Path
    storage: tuple
    ids: dict[int, int]
    palette: dict[int, int] = field(default_factory=dict)
    halves: dict[str, int] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """How pixels are coded: ids, palette or colors."""
        return self.storage[0]

    @property
    def bits(self) -> int:
        """Bits per stored id."""
        return self.storage[1]

    def share(self, raw: int) -> float:
        """Return the fraction of pixels with this raw id."""
        return self.ids.get(raw, 0) / sum(self.ids.values())


@dataclass(frozen=True)
class Fault:
    """A fault of some labels: `what` completes a sentence that begins with `label X`."""

    kind: str
    paths: Sequence[Path]
    what: str
    fix: str


def facts_of(label: Label) -> LabelFacts:
    """Collect the facts about a label."""
    ids = count_ids(label.raw)
    return LabelFacts(label.path, label.storage, ids, label.palette, _halves(label.raw))


def _halves(raw: np.ndarray) -> dict[str, int]:
    y, x = raw.shape[0] // 2, raw.shape[1] // 2
    halves = {"upper": raw[:y], "lower": raw[y:], "left": raw[:, :x], "right": raw[:, x:]}
    return {
        name: int(half[0, 0])
        for name, half in halves.items()
        if half.size and half[0, 0] == half[-1, -1] and (half == half[0, 0]).all()
    }


def check_coding(
    facts: Sequence[LabelFacts], label_map: LabelMap, *, what: str = "label", fix: str = ""
) -> None:
    """Raise DataError for the first fault found in a set of labels, naming one of the files.

    `what` they are and the `fix` differ for predictions and raw masks.
    """
    for fault in contradictions(facts, label_map):
        path, count = fault.paths[0], len(fault.paths)
        others = f" (and {count - 1} more of {len(facts)})" if count > 1 else ""
        raise DataError(f"{what} {path}{others} {fault.what}: {fix or fault.fix}")


def contradictions(facts: Sequence[LabelFacts], label_map: LabelMap) -> list[Fault]:
    """Return all contradictions between labels: none if classes are identified by colour."""
    if label_map.is_of_colors:
        return []
    facts = [f for f in facts if f.kind != "colors"]
    rules: Sequence[Callable[..., Iterable[Fault]]] = (
        _bit_depths,
        _palettes,
        _class_colors,
        _masks,
    )
    return [fault for rule in rules for fault in rule(facts, label_map)]


def _bit_depths(facts: Sequence[LabelFacts], label_map: LabelMap) -> Iterable[Fault]:
    """Find 1-, 2- and 4-bit grayscale files among others: shrinking a file may change its ids."""
    gray = [f for f in facts if f.kind == "ids"]
    small = [f for f in gray if f.bits < 8]
    odd = [f for f in small if f.ids.keys() - {0}]
    if odd and len(small) < len(gray):
        bits = "- and ".join(str(b) for b in sorted({f.bits for f in odd}))
        usual = next(f for f in gray if f.bits >= 8)
        what = (
            f"has {bits}-bit ids among {usual.bits}-bit labels such as {usual.path}, so it may be "
            "coded differently"
        )
        yield Fault("mixed-bits", [f.path for f in odd], what, "save it again like the others")


def _palettes(facts: Sequence[LabelFacts], label_map: LabelMap) -> Iterable[Fault]:
    """Find palettes that give an index another colour than in an earlier file."""
    first: dict[int, LabelFacts] = {}
    odd: list[LabelFacts] = []
    shown = ""
    for f in facts:
        for index, color in f.palette.items():
            earlier = first.setdefault(index, f)
            if index == label_map.ignore_label:  # void may have any colour
                continue
            if earlier.palette[index] != color and not (odd and odd[-1] is f):
                odd.append(f)
                shown = shown or (
                    f"has a palette with colour {color_text(color)} for index {index}, but "
                    f"{earlier.path} has {color_text(earlier.palette[index])}"
                )
    if odd:
        colors = {color for f in facts for color in f.palette.values()}
        yield Fault("palettes", [f.path for f in odd], shown, _by_color(colors, label_map))


def _class_colors(facts: Sequence[LabelFacts], label_map: LabelMap) -> Iterable[Fault]:
    """Find palettes that hold the class colours in an order other than that of the classes."""
    class_of = {color: i for i, color in enumerate(label_map.colors)}
    odd: list[LabelFacts] = []
    shown = ""
    if len(class_of) < len(label_map.colors):
        return
    for f in facts:
        ids = label_map.classes_of(f.palette)
        shown_by = {ids[raw]: c for raw, c in f.palette.items() if 0 <= ids[raw] < len(class_of)}
        shown_colors = set(shown_by.values())
        if len(shown_colors) < len(shown_by) or not shown_colors <= class_of.keys():
            continue
        wrong = [i for i, color in shown_by.items() if class_of[color] != i]
        if wrong:
            odd.append(f)
            color = shown_by[wrong[0]]
            shown = shown or (
                f"has a palette with colour {color_text(color)} for class {wrong[0]}, but in "
                f"TEST.colors_path that is class {class_of[color]}"
            )
    if odd:
        fix = (
            "DATA.label_map: the file of TEST.colors_path, if the palette's colours are right; or "
            "correct that file, if the ids are right"
        )
        yield Fault("palette-colours", [f.path for f in odd], shown, fix)


def _by_color(colors: set[int], label_map: LabelMap) -> str:
    if colors <= set(label_map.colors):
        return "DATA.label_map: the file of TEST.colors_path, which identifies classes by colour"
    lines = ", ".join(color_text(color) for color in sorted(colors)[:20])
    return f"DATA.label_map: a file with a line `R G B id` for each colour: {lines}"


def _masks(facts: Sequence[LabelFacts], label_map: LabelMap) -> Iterable[Fault]:
    """Find 0/255 masks whose 255 would count as void."""
    if label_map.ignore_label != 255 or label_map.table or 255 in label_map.ignore_ids:
        return
    masks = [f for f in facts if {255} <= f.ids.keys() <= {0, 255}]
    others = [f for f in facts if f.ids.keys() - {0, 255}]
    ids = {i for f in facts for i in f.ids}
    if masks and label_map.classes == 2 and ids <= {0, 1, 255}:
        if not any(255 in f.ids for f in others):
            table = "{0: 0, 1: 1, 255: 1}" if 1 in ids else "{0: 0, 255: 1}"
            what = "looks like a 0/255 mask, whose 255 would count as void"
            what += f", while {others[0].path} holds id 1" if others else ""
            yield Fault("mask-0-255", [f.path for f in masks], what, f"DATA.label_map: {table}")
        return
    usual = max((f.share(255) for f in others), default=1.0)
    odd = [f.path for f in masks if 0 in f.ids and f.share(255) > 3 * usual]
    if odd and label_map.classes > 2 and len(others) > 2 * len(odd):
        highest, other = max((max(f.ids.keys() - {255}), str(f.path)) for f in others)
        what = f"holds only 0 and 255, while {other} holds id {highest}"
        fix = "save it again with class ids; or DATA.ignore_ids: [255], if 255 is void there"
        yield Fault("mask-among-ids", odd, what, fix)


def voids(facts: Sequence[LabelFacts], label_map: LabelMap) -> Iterable[Fault]:
    """Find entirely void labels, if they are at least half of all, and half-void ones, if rare.

    Rare means at most a fifth of all labels.
    """
    empty = [f for f in facts if label_map.are_void(f.ids)]
    if 2 * len(empty) >= len(facts) > 1:
        fix = "check DATA.label_map, DATA.ignore_ids and the labels themselves"
        yield Fault("all-void", [f.path for f in empty], "is entirely void", fix)
    half = {
        f.path: name
        for f in facts
        for name, raw in f.halves.items()
        if label_map.are_void([raw]) and f not in empty
    }
    if half and 5 * len(half) <= len(facts):
        what = f"is void in its entire {next(iter(half.values()))} half, unlike most other labels"
        yield Fault("half-void", list(half), what, "annotate that half, or leave the label out")
