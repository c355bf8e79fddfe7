"""Finding the classes of masks from any source: ids, palettes or colours, given or discovered."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from util.data.image import read_label
from util.data.label_map import color_text
from util.error import DataError, UserError
from util.extra.prepare.class_masks import Parts, merge, overlap_warning
from util.extra.prepare.files import VOID, to_ids
from util.extra.prepare.masks import (
    MOST_CLASSES,
    Given,
    Mask,
    check_masks,
    read_color,
    spread_levels,
)
from util.palette import distinct_colors


@dataclass(frozen=True)
class Classes:
    """Names and colours (C, 3) by id, and `table`: mask value (id or colour) -> id or VOID.

    If each class has its own masks, `parts` maps an image's first mask to {id: mask}.
    """

    names: list[str]
    colors: np.ndarray
    table: dict[int, int]
    is_of_colors: bool = False
    parts: Mapping[Path, Parts] = field(default_factory=dict)

    def read(self, path: Path) -> np.ndarray:
        """Read the ids (H, W) of a checked mask. Raises DataError."""
        if self.parts:
            return merge(self.parts[path])[0]
        raw = read_label(path, as_colors=self.is_of_colors)
        return to_ids(raw, self.table, path, "it belongs to no class", self.is_of_colors)

    def check(self, masks: Sequence[Mask]) -> None:
        """Raise DataError if a mask holds a value that belongs to no class."""
        for mask in masks:
            for value in mask.values.values() if self.is_of_colors else mask.values:
                if value not in self.table:
                    kind, shown = "colour" if self.is_of_colors else "id", self.text(value)
                    raise DataError(
                        f"mask {mask.path} holds {kind} {shown}, which belongs to no class: add it "
                        f"to --colors or --names, or give --void {shown.replace(' ', ',')} if it "
                        "is unlabelled"
                    )

    def problems(self) -> Iterator[str]:
        """Yield a warning if masks of one class each overlap."""
        yield from overlap_warning([*self.parts.values()], self.names)

    @property
    def ids(self) -> dict[str, int]:
        """Return {mask value as a number: id or VOID}, or {name: id} if each class has masks."""
        if self.parts:
            return {name: i for i, name in enumerate(self.names)}
        return {str(value): i for value, i in self.table.items()}

    def text(self, value: int) -> str:
        """Format a value as users write it."""
        return color_text(value) if self.is_of_colors else str(value)

    @property
    def void(self) -> str:
        """Describe what counts as unlabelled."""
        if self.parts:
            return "pixels without a class"
        return ", ".join(self.text(value) for value, i in self.table.items() if i == VOID)


def find_classes(masks: Sequence[Mask], given: Given, void: Sequence[str]) -> Classes:
    """Find the classes of all masks together. Raises DataError for values of no class."""
    is_of_colors = _are_colors(masks, {*given.colors, *given.void})
    found: dict[int, int] = {}  # value -> displayed colour
    for mask in masks:
        found |= {c: c for c in mask.values.values()} if is_of_colors else mask.values
    ignored = [_void_value(text, is_of_colors) for text in void if text != "none"]
    if is_of_colors and given.colors:
        of_255 = [m.values[VOID] for m in masks if m.kind == "palette" and VOID in m.values]
        ignored += [c for c in (*given.void, *of_255) if c not in given.colors]
        values = given.colors
    elif is_of_colors:
        values = sorted(found.keys() - set(ignored))
    else:
        count = len(given.colors or given.names)
        is_class_255 = count in (0, len(found)) and _are_grays(sorted(found))
        is_void = VOID in found and "none" not in void and not is_class_255
        is_assumed = is_void and VOID not in ignored
        ids = found.keys() - {VOID, *ignored}
        check_masks(masks, count or len(ids), is_255_assumed=is_assumed, fix="--void 255")
        ignored += [VOID] if is_void else []
        values = _id_values(sorted(found.keys() - set(ignored)), count)
    _check_count(masks, values, given)
    table = {value: i for i, value in enumerate(values)} | dict.fromkeys(ignored, VOID)
    codes = given.colors
    is_shown = is_of_colors or all(mask.kind == "palette" for mask in masks)
    if not codes and is_shown and found.keys() >= set(values):
        codes = [found[value] for value in values]
    rgb = np.array([rgb_of(code) for code in codes], np.uint8)
    colors = rgb if codes else distinct_colors(len(values))
    classes = Classes(given.names, colors, table, is_of_colors)
    classes.check(masks)
    kind = "color" if is_of_colors else "class"
    return replace(classes, names=given.names or [f"{kind} {classes.text(v)}" for v in values])


def classes_of_folders(
    masks: Sequence[Mapping[str, Path]], names: Sequence[str], colors: np.ndarray
) -> Classes:
    """Return the classes of masks with one class each (name -> file), in the order of `names`.

    Without names the order is alphabetical. Without `colors` (C, 3) they are generated.
    """
    found = sorted({name for of in masks for name in of})
    order = list(names) or found
    if not {*found} <= {*order}:
        raise UserError(
            f"the masks have the classes {', '.join(found)}, but the names given are "
            f"{', '.join(order)}: list all of them, in order of ids"
        )
    if len({*order}) < len(order):
        raise UserError(f"the names given are {', '.join(order)}: list each of them once")
    if not 2 <= len(order) <= MOST_CLASSES:
        raise DataError(f"the masks have {len(order)} classes: 2 to {MOST_CLASSES} are needed")
    if len(colors) not in (0, len(order)):
        raise UserError(
            f"--colors has {len(colors)} colours, but there are {len(order)} classes "
            f"({', '.join(order)}): give one line per class"
        )
    parts: dict[Path, Parts] = {}
    for of in masks:
        key, ids = next(iter(of.values())), {order.index(name): of[name] for name in of}
        if parts.setdefault(key, ids) != ids:
            raise DataError(
                f"mask {key} belongs to two images that differ in their other masks: give each "
                "image its own copy"
            )
    return Classes(order, colors if len(colors) else distinct_colors(len(order)), {}, parts=parts)


def rgb_of(code: int) -> tuple[int, int, int]:
    """Return red, green and blue of a colour 0xRRGGBB."""
    return code >> 16, code >> 8 & 255, code & 255


def _are_grays(values: list[int]) -> bool:
    """Whether values up to 255 are gray levels, so that 255 is a class and not void."""
    return values == [0, VOID] or spread_levels(values)


def _id_values(found: list[int], count: int) -> list[int]:
    """Return the mask value of each class, by id.

    The values found if they are 1..count, gray levels or unnamed (count 0), else 0..count-1.
    Raises DataError for 0..count.
    """
    if not count or found == [*range(1, count + 1)]:
        return found
    if len(found) == count and _are_grays(found):
        return found
    if found == [*range(count + 1)]:
        raise DataError(
            f"masks hold ids 0..{count}, one more than the {count} named classes: give --void 0 if "
            f"0 means no data, --void {count} if {count} is unlabelled, or name the missing class"
        )
    return [*range(count)]


def _are_colors(masks: Sequence[Mask], known: set[int]) -> bool:
    """Whether colours rather than ids identify the classes.

    They do in colour images, in contradictory palettes and in masks that show `known` colours.
    """
    first = {mask.kind: mask for mask in reversed(masks)}
    if known and known.issuperset(c for mask in masks for c in mask.values.values()):
        return True
    palettes = [mask.values for mask in masks if mask.kind == "palette"]
    shown: dict[int, int] = {}
    contradict = any(shown.setdefault(i, c) != c for values in palettes for i, c in values.items())
    by_color = contradict or any(c in known for v in palettes for c in v.values() if c)
    if "ids" in first and ("colors" in first or by_color):
        other = first.get("colors") or first["palette"]
        raise DataError(
            f"mask {first['ids'].path} holds ids, but {other.path} holds colours: save all masks "
            "in the same way"
        )
    return "colors" in first or by_color


def _void_value(text: str, is_of_colors: bool) -> int:
    code = read_color([word.strip() for word in text.split(",")])
    if is_of_colors and code is not None:
        return code
    if not is_of_colors and text.isascii() and text.isdecimal() and len(text) < 6:
        return int(text)
    wanted = "colours: give R,G,B such as 0,0,0" if is_of_colors else "ids: give a number such as 0"
    raise UserError(f"--void {text} does not fit masks of {wanted}")


def _check_count(masks: Sequence[Mask], values: Sequence[int], given: Given) -> None:
    where = f"masks such as {masks[0].path} hold"
    if len(values) < 2:
        raise DataError(f"{where} {len(values) or 'no'} class besides void: at least 2 are needed")
    if len(values) > MOST_CLASSES:
        raise DataError(
            f"{where} {len(values)} different values, but at most {MOST_CLASSES} can be classes: "
            "save masks without smoothing, or list the colours of the classes in --colors FILE"
        )
    if given.names and len(given.names) != len(values):
        raise DataError(
            f"{where} {len(values)} classes, but --names has {len(given.names)}: give one name per "
            "class"
        )
