"""What wrong ids come from, most likely, and the setting that fixes them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Cause:
    """Why ids do not fit, and the config line that fixes it; where they can be read in several
    ways, the lines of all readings, the likeliest first."""

    kind: str
    looks_like: str
    fix: str


def probable_cause(
    found: Mapping[int, int], *, classes: int, ignore_label: int, colors: Sequence[int] = ()
) -> Cause:
    """Why ids (id -> pixels of a file, or a dataset), some of which are wrong, are not 0..classes-1
    or ignored. `colors` of the classes are r*65536 + g*256 + b, () where not known."""
    ids = set(found)
    is_mask = classes == 2 or (classes <= 255 and ignore_label != 255)
    if is_mask and ids <= {0, 255} and 255 in ids:
        return Cause("mask-0-255", "looks like a 0/255 mask", _map({0: 0, 255: 1}))
    wrong = sorted(i for i in ids if not 0 <= i < classes and i != ignore_label)
    kept = ids - {ignore_label}
    if classes == 19 and max(kept) <= 33 and min(kept) >= -1:
        return Cause(
            "cityscapes-ids", "looks like Cityscapes labelIds", "DATA.label_map: cityscapes"
        )
    if wrong == [classes] == [150]:
        return Cause("ade20k-ids", "looks like ADE20K's raw ids 0..150", "DATA.label_map: ade20k")
    return (
        _shifted(kept, wrong, classes, ignore_label)
        or _gray_colors(kept, colors)
        or _shades(ids, kept, classes, ignore_label)
        or _smoothed(found, classes)
        or _void(wrong)
        or Cause(
            "other-ids",
            "looks like ids of another set of classes, or shades of gray",
            f"DATA.classes: {wrong[-1] + 1}, or DATA.label_map: a file of `id: class` lines",
        )
    )


def _map(table: Mapping[int, int]) -> str:
    return f"DATA.label_map: {{{', '.join(f'{raw}: {i}' for raw, i in table.items())}}}"


def _shifted(kept: set[int], wrong: list[int], classes: int, ignore_label: int) -> Cause | None:
    """1..classes for the classes, with or without a 0 (or a -1) for no data."""
    if wrong not in ([classes], [-1, classes]):
        return None
    void = {i: ignore_label for i in (-1, 0) if i in kept}
    shift = _map(void | {i: i - 1 for i in range(1, classes + 1)})
    if 0 not in kept:
        return Cause("off-by-one", f"looks as if ids started at 1 (1..{classes})", shift)
    readings = [
        f"{shift}, if 0 is no data",
        f"DATA.ignore_ids: {wrong}, if {classes} is void",
        f"DATA.classes: {classes + 1}, if it is one more class",
    ]
    if kept - {-1} == set(range(classes + 1)):
        looks_like = f"looks like 0 for no data and classes 1..{classes}"
        return Cause("zero-is-void", looks_like, "; or ".join(readings))
    looks_like = "looks like another number for void, a class more or 0 for no data"
    return Cause("void-id", looks_like, "; or ".join([readings[1], readings[2], readings[0]]))


def _gray_colors(kept: set[int], colors: Sequence[int]) -> Cause | None:
    """Colours of the classes that were saved as gray values."""
    gray = [_luma(color) for color in colors]
    if len(kept - {0}) < 2 or not kept <= set(gray):
        return None
    fix = _map({value: gray.index(value) for value in sorted(kept)})
    if any(gray.count(value) > 1 for value in kept):
        fix = "the masks again, saved as ids or RGB: some classes have the same gray"
    return Cause("colours-as-gray", "are the class colours turned to gray", fix)


def _luma(color: int) -> int:
    red, green, blue = color >> 16, color >> 8 & 255, color & 255
    return (19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16  # ITU-R BT.601


def _shades(ids: set[int], kept: set[int], classes: int, ignore_label: int) -> Cause | None:
    """One shade of gray per class, in order; 255 may be a class or void."""
    if ids & set(range(1, classes)):
        return None
    for shades in (sorted(ids), sorted(kept)):
        if len(shades) == classes:
            fix = _map({shade: i for i, shade in enumerate(shades)})
            if classes == 2 and len(ids) == 3 and 255 not in shades:
                middle = shades[1]
                other = _map({0: 0, 255: 1, middle: ignore_label})
                fix = f"{fix}, if 255 is void; or {other}, if {middle} is void"
            named = ", ".join(map(str, shades[:6])) + (", ..." if classes > 6 else "")
            return Cause("shades", f"looks like a shade of gray per class ({named})", fix)
    return None


def _smoothed(found: Mapping[int, int], classes: int) -> Cause | None:
    """A 0/255 mask whose edges were smoothed, or that was a JPEG file once."""
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
    if len(wrong) > 2:
        return None
    return Cause("void-id", "looks like another number for void", f"DATA.ignore_ids: {wrong}")
