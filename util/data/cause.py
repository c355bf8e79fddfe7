"""Diagnose wrong ids in labels: the probable cause and the setting that fixes it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Cause:
    """Why ids are wrong, and the config line that fixes them.

    If there are several interpretations, `fix` lists the line of each, the most likely one first.
    """

    kind: str
    looks_like: str
    fix: str


def probable_cause(
    found: Mapping[int, int], *, classes: int, ignore_label: int, colors: Sequence[int] = ()
) -> Cause:
    """Return the probable cause of ids other than 0..classes-1 and `ignore_label`.

    `found` maps the ids of a file or dataset, some of them wrong, to pixel counts. `colors` are the
    class colours as r*65536 + g*256 + b, () if unknown.
    """
    ids = set(found)
    is_mask = classes == 2 or (classes <= 255 and ignore_label != 255)
    if is_mask and ids <= {0, 255} and 255 in ids:
        return Cause("mask-0-255", "looks like a 0/255 mask", _label_map_line({0: 0, 255: 1}))
    wrong = sorted(i for i in ids if not 0 <= i < classes and i != ignore_label)
    kept = ids - {ignore_label}
    if classes == 19 and 19 < max(kept) <= 33 and min(kept) >= -1:
        return Cause(
            "cityscapes-ids", "looks like Cityscapes labelIds", "DATA.label_map: cityscapes"
        )
    if wrong == [classes] == [150]:
        return Cause("ade20k-ids", "looks like raw ADE20K ids 0..150", "DATA.label_map: ade20k")
    return (
        _shifted(kept, wrong, classes, ignore_label)
        or _gray_colors(kept, colors)
        or _gray_levels(ids, kept, classes, ignore_label)
        or _smoothed(found, classes)
        or _void(wrong)
        or Cause(
            "other-ids",
            "looks like ids of another class set, or gray levels",
            f"DATA.classes: {wrong[-1] + 1}, or DATA.label_map: a file of `id: class` lines",
        )
    )


def _label_map_line(table: Mapping[int, int]) -> str:
    return f"DATA.label_map: {{{', '.join(f'{raw}: {i}' for raw, i in table.items())}}}"


def _shifted(kept: set[int], wrong: list[int], classes: int, ignore_label: int) -> Cause | None:
    """Recognise classes numbered 1..classes, with or without 0 (or -1) for no data."""
    if wrong not in ([classes], [-1, classes]):
        return None
    void = {i: ignore_label for i in (-1, 0) if i in kept}
    shift = _label_map_line(void | {i: i - 1 for i in range(1, classes + 1)})
    if 0 not in kept:
        return Cause("off-by-one", f"looks like ids starting at 1 (1..{classes})", shift)
    readings = [
        f"{shift}, if 0 means no data",
        f"DATA.ignore_ids: {wrong}, if {classes} is void",
        f"DATA.classes: {classes + 1}, if {classes} is another class",
    ]
    if kept - {-1} == set(range(classes + 1)):
        looks_like = f"looks like 0 for no data and classes 1..{classes}"
        return Cause("zero-is-void", looks_like, "; or ".join(readings))
    looks_like = "looks like a different void id, an extra class or 0 for no data"
    return Cause("void-id", looks_like, "; or ".join([readings[1], readings[2], readings[0]]))


def _gray_colors(kept: set[int], colors: Sequence[int]) -> Cause | None:
    """Recognise class colours converted to grayscale."""
    gray = [_luma(color) for color in colors]
    if len(kept - {0}) < 2 or not kept <= set(gray):
        return None
    fix = _label_map_line({value: gray.index(value) for value in sorted(kept)})
    if any(gray.count(value) > 1 for value in kept):
        fix = "save the masks again as ids or in RGB, since some classes share a gray level"
    return Cause("colours-as-gray", "looks like the class colours converted to grayscale", fix)


def _luma(color: int) -> int:
    """Return the gray level of a packed colour."""
    red, green, blue = color >> 16, color >> 8 & 255, color & 255
    return (19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16  # ITU-R BT.601


def _gray_levels(ids: set[int], kept: set[int], classes: int, ignore_label: int) -> Cause | None:
    """Recognise one gray level per class, in class order; 255 may be a class or void."""
    if ids & set(range(1, classes)):
        return None
    for levels in (sorted(ids), sorted(kept)):
        if len(levels) == classes:
            fix = _label_map_line({level: i for i, level in enumerate(levels)})
            if classes == 2 and len(ids) == 3 and 255 not in levels:
                middle = levels[1]
                other = _label_map_line({0: 0, 255: 1, middle: ignore_label})
                fix = f"{fix}, if 255 is void; or {other}, if {middle} is void"
            named = ", ".join(map(str, levels[:6])) + (", ..." if classes > 6 else "")
            return Cause("shades", f"looks like one gray level per class ({named})", fix)
    return None


def _smoothed(found: Mapping[int, int], classes: int) -> Cause | None:
    """Recognise a 0/255 mask with smoothed edges, or one that was once a JPEG file."""
    low = sum(n for i, n in found.items() if 0 <= i < 64)
    high = sum(n for i, n in found.items() if 192 <= i <= 255)
    if classes != 2 or len(found) < 4 or not low or not high:
        return None
    if low + high < 0.8 * sum(found.values()):
        return None
    between = sum(n for i, n in found.items() if i not in (0, 255))
    lines = "'0-127: 0' '128-255: 1'"
    fix = f"DATA.label_map: label_map.txt, after printf '%s\\n' {lines} > label_map.txt"
    looks_like = f"looks like a 0/255 mask with smoothed edges ({between} pixels in between)"
    return Cause("smoothed-mask", looks_like, fix)


def _void(wrong: list[int]) -> Cause | None:
    """Recognise a different void id, or two."""
    if len(wrong) > 2:
        return None
    return Cause("void-id", "looks like a different void id", f"DATA.ignore_ids: {wrong}")
