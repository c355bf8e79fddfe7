"""Labels of one dataset against each other: a file that is coded otherwise than the rest is named.

The dataset check looks at all labels, the loaders at the first ones and at every label that is
stored otherwise than the first.
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
    """How a label is stored and what it holds: raw id -> pixels, used index -> its colour, and
    halves of the image that hold one id alone -> that id."""

    path: Path
    storage: tuple
    ids: dict[int, int]
    palette: dict[int, int] = field(default_factory=dict)
    halves: dict[str, int] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """ids, palette or colors."""
        return self.storage[0]

    @property
    def bits(self) -> int:
        """Of a stored id."""
        return self.storage[1]

    def share(self, raw: int) -> float:
        """The part of the pixels that hold an id."""
        return self.ids.get(raw, 0) / sum(self.ids.values())


@dataclass(frozen=True)
class Fault:
    """What is wrong with some labels, as `label X <what>`, and the fix."""

    kind: str
    paths: Sequence[Path]
    what: str
    fix: str


def facts_of(label: Label) -> LabelFacts:
    """Count what a label holds."""
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


def check_coding(facts: Sequence[LabelFacts], label_map: LabelMap) -> None:
    """Raise DataError for the first fault of a set of labels, naming one of its files."""
    for fault in contradictions(facts, label_map):
        path, count = fault.paths[0], len(fault.paths)
        others = f" (and {count - 1} more of {len(facts)})" if count > 1 else ""
        raise DataError(f"label {path}{others} {fault.what}: {fault.fix}")


def contradictions(facts: Sequence[LabelFacts], label_map: LabelMap) -> list[Fault]:
    """All that does not fit together. Where colours tell the class, nothing can contradict."""
    if label_map.is_of_colors:
        return []
    facts = [f for f in facts if f.kind != "colors"]
    rules: Sequence[Callable[..., Iterable[Fault]]] = (_depths, _palettes, _class_colors, _masks)
    return [fault for rule in rules for fault in rule(facts, label_map)]


def _depths(facts: Sequence[LabelFacts], label_map: LabelMap) -> Iterable[Fault]:
    """Gray files of 1, 2, 4 bits among others: programs that shrink files may change ids."""
    gray = [f for f in facts if f.kind == "ids"]
    small = [f for f in gray if f.bits < 8]
    odd = [f for f in small if f.ids.keys() - {0}]
    if odd and len(small) < len(gray):
        bits = " and ".join(str(b) for b in sorted({f.bits for f in odd}))
        usual = next(f.bits for f in gray if f.bits >= 8)
        what = f"of {bits} bits among labels of {usual} bits, so its ids may be coded otherwise"
        yield Fault("mixed-bits", [f.path for f in odd], what, "save it again as the others are")


def _palettes(facts: Sequence[LabelFacts], label_map: LabelMap) -> Iterable[Fault]:
    """An index that shows one colour in a file and another in the next."""
    first: dict[int, LabelFacts] = {}
    odd: list[LabelFacts] = []
    shown = ""
    for f in facts:
        for index, color in f.palette.items():
            earlier = first.setdefault(index, f)
            if index == label_map.ignore_label:  # void may look like anything
                continue
            if earlier.palette[index] != color and not (odd and odd[-1] is f):
                odd.append(f)
                shown = shown or (
                    f"whose palette shows index {index} as {color_text(color)}, which is "
                    f"{color_text(earlier.palette[index])} in {earlier.path}"
                )
    if odd:
        colors = {color for f in facts for color in f.palette.values()}
        yield Fault("palettes", [f.path for f in odd], shown, _by_color(colors, label_map))


def _class_colors(facts: Sequence[LabelFacts], label_map: LabelMap) -> Iterable[Fault]:
    """Palettes of the class colours in another order than that of the classes."""
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
                f"whose palette shows class {wrong[0]} as {color_text(color)}, the colour of class "
                f"{class_of[color]} in TEST.colors_path"
            )
    if odd:
        fix = (
            "DATA.label_map: the file of TEST.colors_path, if the palette's colours are right; or "
            "correct that file, if the ids are"
        )
        yield Fault("palette-colours", [f.path for f in odd], shown, fix)


def _by_color(colors: set[int], label_map: LabelMap) -> str:
    if colors <= set(label_map.colors):
        return "DATA.label_map: the file of TEST.colors_path, so that colours tell the class"
    lines = ", ".join(color_text(color) for color in sorted(colors)[:20])
    return f"DATA.label_map: a file with a line `R G B id` for each colour: {lines}"


def _masks(facts: Sequence[LabelFacts], label_map: LabelMap) -> Iterable[Fault]:
    """Masks of 0 and 255 where 255 passes for void."""
    if label_map.ignore_label != 255 or label_map.table or 255 in label_map.ignore_ids:
        return
    masks = [f for f in facts if {255} <= f.ids.keys() <= {0, 255}]
    others = [f for f in facts if f.ids.keys() - {0, 255}]
    ids = {i for f in facts for i in f.ids}
    if masks and label_map.classes == 2 and ids <= {0, 1, 255}:
        if not any(255 in f.ids for f in others):
            table = "{0: 0, 1: 1, 255: 1}" if 1 in ids else "{0: 0, 255: 1}"
            what = "looks like a 0/255 mask, whose 255 would count as void"
            yield Fault("mask-0-255", [f.path for f in masks], what, f"DATA.label_map: {table}")
        return
    usual = max((f.share(255) for f in others), default=1.0)
    odd = [f.path for f in masks if 0 in f.ids and f.share(255) > 3 * usual]
    if odd and label_map.classes > 2 and len(others) > 2 * len(odd):
        what = f"holds nothing but 0 and 255 among labels of ids up to {max(ids - {255})}"
        fix = "save it again with class ids; or DATA.ignore_ids: [255], if 255 is void there"
        yield Fault("mask-among-ids", odd, what, fix)


def voids(facts: Sequence[LabelFacts], label_map: LabelMap) -> Iterable[Fault]:
    """Labels of void alone, where they are half or more of all; labels of which one half is void,
    though that of most others is not."""
    empty = [f for f in facts if label_map.are_void(f.ids)]
    if 2 * len(empty) >= len(facts) > 1:
        fix = "check DATA.label_map, DATA.ignore_ids and what the labels hold"
        yield Fault("all-void", [f.path for f in empty], "holds nothing but void", fix)
    half = {
        f.path: name
        for f in facts
        for name, raw in f.halves.items()
        if label_map.are_void([raw]) and f not in empty
    }
    if half and 5 * len(half) <= len(facts):
        what = f"is void in its whole {next(iter(half.values()))} half, unlike the other labels"
        yield Fault("half-void", list(half), what, "annotate that half, or leave the label out")
