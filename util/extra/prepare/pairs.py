"""Pairing the user's images and masks, whatever their names."""

import itertools
import os
import re
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from util.error import DataError, UserError, show
from util.extra.prepare.files import Named, composed, find_files, unpaired
from util.extra.prepare.masks import read_lines


@dataclass(frozen=True)
class Pair:
    """An image, its name below images/, and its mask {'': file}, or masks {class: file}."""

    name: str
    image: Path
    masks: dict[str, Path]


def find_pairs(options: Namespace) -> tuple[list[Pair], list[str]]:
    """Return the pairs in order of their names, and messages about files without a partner."""
    for option, folder in (("--images", options.images), ("--masks", options.masks)):
        if not folder.is_dir():
            raise DataError(f"{option} {folder} is not a folder")
        out = options.out.resolve()
        if folder.resolve() in (out, *out.parents):
            raise DataError(f"--out {options.out} lies inside {option}: choose another --out")
    if options.pairs:
        return listed_pairs(options), []
    image_pattern, mask_pattern = options.pair or ("*", f"*{options.mask_suffix}")
    masks = find_files(options.masks, mask_pattern)
    of_masks = set(masks.values()) if mask_pattern != "*" else set()
    images = find_files(options.images, image_pattern, but=of_masks)
    if options.class_folders:
        return pairs_of_class_folders(images, masks)
    images, masks = read_names(images, masks)
    both = [key for key in images if key in masks]
    if len(both) < 2:
        raise DataError(advice(options, images, masks, len(both)))
    print(show(f"pairs: {len(both)}, such as {images[both[0]].name} with {masks[both[0]].name}"))
    found = [Pair(below(options.images, images[k]), images[k], {"": masks[k]}) for k in both]
    return found, [*unpaired(images, masks, "pairs")]


def below(folder: Path, path: Path) -> str:
    """Return the name of a file below a folder, without extension."""
    return composed(path.relative_to(folder).with_suffix(""))


def read_names(images: Named, masks: Named) -> tuple[Named, Named]:
    """Key the files by the names that pair most of them: unchanged, or by a known convention."""

    def pairs(read: tuple[Named, Named]) -> int:
        return len(read[0].keys() & read[1].keys())

    if 2 * pairs((images, masks)) > min(len(images), len(masks)):
        return images, masks
    return max([(images, masks), *habits(images, masks)], key=pairs)


def habits(images: Named, masks: Named) -> Iterator[tuple[Named, Named]]:
    """Yield images and masks keyed by other naming conventions."""

    def by(rule: Callable[[str], str], files: Named) -> Named:
        renamed = {rule(name): path for name, path in files.items()}
        return renamed if len(renamed) == len(files) else {}

    yield {f"{name}{path.suffix}": path for name, path in images.items()}, masks  # x.jpg.png
    for rule in (
        os.path.basename,
        str.lower,
        lambda name: re.sub(r"^[0-9a-f]{8}-", "", os.path.basename(name)),  # Label Studio uploads
    ):
        yield by(rule, images), by(rule, masks)
    yield by(middle_of(images), images), by(middle_of(masks), masks)  # img_1, mask_1


def middle_of(files: Named) -> Callable[[str], str]:
    """Return a rule that strips the words with which all names begin or end."""
    stems = [os.path.basename(name) for name in files]
    first, last = len(common_words(stems)), len(common_words([stem[::-1] for stem in stems]))

    def rule(name: str) -> str:
        folders, stem = os.path.split(name)
        return os.path.join(folders, stem[first : len(stem) - last])

    return rule


def common_words(names: Sequence[str]) -> str:
    """Return the longest common prefix that ends neither within a word nor in a number."""
    equal = itertools.takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False))
    start = "".join(letters[0] for letters in equal).rstrip("0123456789")
    while start and start[-1].isalpha() and any(n[len(start) :][:1].isalpha() for n in names):
        start = start[:-1]
    return start


def pairs_of_class_folders(images: Named, masks: Named) -> tuple[list[Pair], list[str]]:
    """Pair images with masks <class>/<name>; also return messages about files left out."""
    by_name: dict[str, dict[str, Path]] = {}
    for key, path in masks.items():
        top, _, name = key.partition("/")
        if name:
            by_name.setdefault(name, {})[top] = path
    found = [Pair(name, images[name], by_name[name]) for name in images if name in by_name]
    if len(found) < 2:
        raise DataError(
            f"--class-folders needs at least 2 images with a mask <class>/<name> below --masks, "
            f"found {len(found)}"
        )
    singles = {name: next(iter(of.values())) for name, of in by_name.items()}
    return found, [*unpaired(images, singles, "pairs")]


def listed_pairs(options: Namespace) -> list[Pair]:
    """Read the pairs in the file --pairs. Raises UserError."""
    found: dict[str, Pair] = {}
    for number, line in enumerate(read_lines("--pairs", options.pairs), 1):
        image, mask, class_name, *rest = (*(w.strip() for w in re.split("[\t,]", line)), "", "")
        paths = options.images / image, options.masks / mask
        gone = next((path for path in paths if not path.is_file()), None)
        if gone or any(rest) or ".." in paths[0].parts or Path(image).is_absolute():
            problem = f"no file {gone}" if gone and mask else f"'{line}'"
            raise UserError(
                f"--pairs {options.pairs} line {number}: {problem}; write `image<TAB>mask` or "
                "`image<TAB>mask<TAB>class`, relative to --images and --masks"
            )
        name = below(options.images, paths[0])
        pair = found.setdefault(name, Pair(name, paths[0], {}))
        if pair.image != paths[0]:
            raise UserError(
                f"--pairs {options.pairs} line {number}: {image} and {pair.image.name} differ only "
                "in their extension: rename one of them"
            )
        if class_name in pair.masks:
            raise UserError(
                f"--pairs {options.pairs} line {number} repeats {image}: remove one of the lines"
            )
        pair.masks[class_name] = paths[1]
    if len(found) < 2 or len({bool(name) for pair in found.values() for name in pair.masks}) > 1:
        raise UserError(
            f"--pairs {options.pairs} must name at least 2 images, and a class on all lines or on "
            "none"
        )
    return [found[name] for name in sorted(found)]


def advice(options: Namespace, images: Named, masks: Named, count: int) -> str:
    """Explain what to do if the names do not pair."""
    shown = " and ".join(str(next(iter(d.values()))) for d in (images, masks) if d)
    what = (
        f"{count} pairs of the same name among {len(images)} images in {options.images} and "
        f"{len(masks)} masks in {options.masks} ({shown or 'no files'}): at least 2 are needed; "
    )
    folders = [key.partition("/")[0] for key in masks if os.path.basename(key) in images]
    if len(set(folders)) > 1:
        return f"{what}if {folders[0]} and {folders[-1]} are classes, give --class-folders"
    if any(re.match(r"task-\d+-annotation-\d+", os.path.basename(key)) for key in masks):
        return (
            f"{what}Label Studio names masks by task: give --pairs FILE with lines "
            "`image<TAB>mask<TAB>class` (its JSON export gives the image of each task)"
        )
    return f"{what}--pair 'img_*' '*_mask' pairs img_x.jpg with x_mask.png, --pairs FILE lists them"
