"""Prepare your own data: a folder of images and a folder of masks with the same names.

    python tool/prepare_folder.py --images photos --masks masks --out dataset/mine

Subfolders train/ and val/ (and test/), or train2017/ and the like, define the split; otherwise
--val-fraction of the pairs are chosen at random for validation, or --folds writes K pairs of lists.
Masks hold class ids (gray or palette files) or colours; with one mask per class, that of the higher
id is on top. Without --colors or --names, the values found in all masks become ids 0, 1, ... in
order; 255 is unlabelled in masks with more than two ids, unless they are evenly spaced grays. Also
writes <name>_names.txt and <name>_colors.txt next to --out, for you to edit, and recipes for
PSPNet18 and PSPNet50 to config/.
"""

import os
import re
import sys
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from util.error import DataError, UserError, run_cli  # isort: split

import numpy as np

from util.config import ROOT
from util.extra.parallel import in_threads
from util.extra.prepare.classes import Classes, classes_of_folders, find_classes, rgb_of
from util.extra.prepare.files import VOID, Split
from util.extra.prepare.masks import check_masks, read_class_file, scan_mask
from util.extra.prepare.pairs import Pair, find_pairs
from util.extra.prepare.recipe import recipes
from util.extra.prepare.split import VAL_FRACTION, split_pairs, to_items
from util.extra.prepare.write import (
    Plan,
    carry_out,
    check_out,
    prepare_parser,
    read_record,
    record_path,
    report_problems,
    write_new,
)
from util.palette import load_colors, load_names


def main() -> None:
    options = parse_options()
    name = dataset_name(options.out)
    pairs, problems = find_pairs(options)
    in_labels = options.masks.resolve() == options.out.resolve() / "labels"
    label_folder = "label_ids" if in_labels else "labels"
    splits = {
        split: Split(to_items(split, some, label_folder))
        for split, some in split_pairs(pairs, options).items()
    }
    classes = choose_classes(options, pairs)
    texts = attribute_files(options.out, name, classes)
    train, val = ("fold1_train", "fold1_val") if options.folds else ("train", "val")
    texts |= recipes(
        options.config,
        options.out,
        name,
        lists=(train, val),
        train=splits[train].items,
        classes=len(classes.names),
    )
    problems += [*other_ids(options, classes), *classes.problems()]
    report_problems(problems, options.strict)
    beside = options.images.parent.resolve() == options.masks.parent.resolve()
    record = {
        "images": str(options.images.resolve()),
        "masks": str(options.masks.resolve()),
        "val_fraction": options.val_fraction or VAL_FRACTION,
        "folds": options.folds,
        "seed": options.seed,
        "is_of_colors": classes.is_of_colors,
        "values": {str(value): i for value, i in classes.table.items()},
        "class_ids": classes.ids if classes.parts else {},
    }
    raw = [options.images.parent] if beside else []
    folders = {"--config": options.config / name}
    carry_out(Plan(name, splits, classes.read, raw, record=record, folders=folders), options)
    for path, text in texts.items():
        if path.is_file() and path.read_bytes() != text.encode():  # the user may have edited it
            print(f"  {path}: exists, left unchanged")
        else:
            write_new(path, text)
            print(f"  {path}")
    shown = ", ".join(classes.names[:20]) + (" …" if len(classes.names) > 20 else "")
    print(f"  classes: {len(classes.names)} ({shown}); void: {classes.void or 'nothing'}")


def parse_options() -> Namespace:
    """Parse the command line. Raises UserError for invalid options."""
    parser = prepare_parser(__doc__)
    add = parser.add_argument
    add("--images", type=Path, required=True, help="folder of images, searched recursively")
    add("--masks", type=Path, required=True, help="folder of masks, named like the images")
    add("--mask-suffix", default="", help="suffix of mask names, such as _mask")
    add(
        "--pair", nargs=2, metavar=("IMAGE", "MASK"), help="name patterns, such as '*_sat' '*_mask'"
    )
    add("--pairs", type=Path, metavar="FILE", help="file of `image<TAB>mask[<TAB>class]` lines")
    add("--class-folders", action="store_true", help="masks/<class>/ has the masks of a class")
    add("--val-fraction", type=float, help="random fraction for validation (0.2)")
    add("--folds", type=int, default=0, metavar="K", help="K pairs of lists, for cross-validation")
    add("--seed", type=int, default=0, help="seed of the random split")
    add("--colors", type=Path, help="file of `R G B [name]` lines in order of ids; void: 255")
    add("--names", type=Path, help="file of class names, one per line, in order of ids")
    add(
        "--void",
        nargs="+",
        default=[],
        help="unlabelled values: ids such as 0, colours such as 0,0,0, or none",
    )
    add("--like", type=Path, metavar="OUT", help="prepared folder whose classes and ids to use")
    add("--config", type=Path, default=ROOT / "config", help="folder for the recipes")
    options = parser.parse_args()
    check_out(options.out)
    fraction, folds = options.val_fraction, options.folds
    if fraction is not None and not 0 < fraction < 1:
        raise UserError(f"--val-fraction must be between 0 and 1, got {fraction}")
    if options.seed < 0:
        raise UserError(f"--seed must be at least 0, got {options.seed}")
    if folds and (folds < 2 or fraction is not None):
        raise UserError(f"--folds must be at least 2, without --val-fraction, got {folds}")
    return options


def dataset_name(out: Path) -> str:
    """Return the last part of --out, which names the recipes and the runs."""
    name = Path(os.path.abspath(out)).name
    if not re.fullmatch(r"[\w.-]+", name):
        raise UserError(f"--out {out} must end in a name of letters, digits, - _ . only")
    return name


def choose_classes(options: Namespace, pairs: Sequence[Pair]) -> Classes:
    """Determine the classes: from --like, from the user's options, or from all masks."""
    given = read_class_file(options.colors, options.names)
    if options.like is not None and (options.void or given.names or given.colors):
        raise UserError(
            "--like sets names, colours and void: give it without --names, --colors, --void"
        )
    like = prepared_classes(options.like) if options.like is not None else None
    if any("" not in pair.masks for pair in pairs):
        if options.void:
            raise UserError(
                "--void is for masks of several classes: with one mask per class, the pixels of "
                "none are unlabelled"
            )
        colors = np.array([rgb_of(code) for code in given.colors])
        names, colors = (like.names, like.colors) if like else (given.names, colors)
        return classes_of_folders([pair.masks for pair in pairs], names, colors)
    masks = in_threads(scan_mask, [pair.masks[""] for pair in pairs], "masks")
    if like is None:
        return find_classes(masks, given, options.void)
    if not like.table:
        raise UserError(
            f"--like {options.like} was prepared from one mask per class, so it holds no ids or "
            "colours of masks: give --names instead"
        )
    if not like.is_of_colors:
        is_void, fix = like.table.get(VOID) == VOID, "--names and --void 255 instead of --like"
        check_masks(masks, len(like.names), is_255_assumed=is_void, fix=fix)
    like.check(masks)
    return like


def prepared_classes(folder: Path) -> Classes:
    """Load the classes of a folder that this tool prepared. Raises UserError."""
    name = dataset_name(folder)
    names_path, colors_path = attribute_paths(folder, name)
    path = record_path(folder, name)
    record = read_record(path) if path.is_file() else {}
    ids = recorded_ids(record)
    if not (names_path.is_file() and colors_path.is_file() and ids):
        raise UserError(
            f"--like {folder}: no folder that prepare_folder.py wrote (with {path.name}, and "
            f"{name}_names.txt and {name}_colors.txt next to it)"
        )
    count = len({*ids.values()} - {VOID})
    names, colors = load_names(str(names_path), count), load_colors(str(colors_path), count)
    table = {} if record.get("class_ids") else {int(value): i for value, i in ids.items()}
    return Classes(names, colors, table, bool(record.get("is_of_colors")))


def other_ids(options: Namespace, classes: Classes) -> Iterator[str]:
    """Yield a warning for each prepared folder next to --out with another id for a class."""
    out = options.out.resolve()
    for path in sorted(out.parent.glob("*/prepare_*.json")) if options.like is None else ():
        try:
            record = read_record(path)
        except DataError:  # of another dataset
            continue
        ids = recorded_ids(record)
        differ = [value for value, i in classes.ids.items() if ids.get(value, i) != i]
        same_kind = record.get("is_of_colors") == classes.is_of_colors
        same_kind &= bool(record.get("class_ids")) == bool(classes.parts)
        if path.parent != out and same_kind and differ:
            value, folder = differ[0], os.path.relpath(path.parent)
            shown = value if classes.parts else classes.text(int(value))
            yield (
                f"{shown} is id {ids[value]} in {folder}, but "
                f"{classes.ids[value]} here: give --like {folder} to keep its ids"
            )


def recorded_ids(record: Mapping[str, Any]) -> dict[str, int]:
    """Return {value in a mask, or name of a class: id} of a record; {} if it has none."""
    try:
        values = {str(int(value)): int(i) for value, i in dict(record.get("values", {})).items()}
        return values | {k: int(i) for k, i in dict(record.get("class_ids", {})).items()}
    except (ValueError, TypeError):
        return {}


def attribute_paths(out: Path, name: str) -> tuple[Path, Path]:
    """Return the paths of the names and colours files, next to `out`."""
    folder = Path(os.path.abspath(out)).parent
    return folder / f"{name}_names.txt", folder / f"{name}_colors.txt"


def attribute_files(out: Path, name: str, classes: Classes) -> dict[Path, str]:
    """Return the content of the names and colours files."""
    names = "".join(f"{n}\n" for n in classes.names)
    colors = "".join(f"{r} {g} {b}\n" for r, g, b in classes.colors)
    texts = dict(zip(attribute_paths(out, name), (names, colors), strict=True))
    for path in texts:
        if path.is_file() and len(path.read_bytes().rstrip().splitlines()) != len(classes.names):
            raise DataError(
                f"{path} exists, but without {len(classes.names)} lines, one per class of these "
                "masks: remove it or choose another --out"
            )
    return texts


if __name__ == "__main__":
    run_cli(main)
