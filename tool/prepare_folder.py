"""Prepares your own data: any folder of images and any folder of masks of the same names.

    python tool/prepare_folder.py --images photos --masks masks --out dataset/mine

Masks hold class ids (gray or palette files) or colours. Without --colors or --names, the values
found in all masks become ids 0, 1, ... in order. Where masks hold ids, 255 is unlabeled, unless
there are just two values. Beside --out come <name>_names.txt and <name>_colors.txt, made to be
edited, and below config/ a recipe for PSPNet50 and one for PSPNet18.
"""

import os
import re
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from string import Template

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from util.error import DataError, UserError, run_cli  # isort: split

import numpy as np

from util.config import ROOT
from util.data.image import IMAGE_SUFFIXES, image_info
from util.extra.prepare.masks import Classes, find_classes, read_class_file, scan_mask
from util.extra.prepare.plan import Plan, carry_out, parallel, prepare_parser, write_text
from util.extra.prepare.raw import Item, files_by_stem, pair_up

LARGEST_CROP = 473  # as in the recipes of ADE20K and VOC 2012
LARGEST_BATCH = 8
NETS = {  # layers, weights to start from
    "pspnet50": (50, "initmodel/resnet50_v2.pth"),
    "pspnet18": (18, "initmodel/resnet18_v1.pth"),
}


def main() -> None:
    parser = prepare_parser(__doc__)
    add = parser.add_argument
    add("--images", type=Path, required=True, help="folder of images, with subfolders")
    add("--masks", type=Path, required=True, help="folder of masks, named as the images")
    add("--mask-suffix", default="", help="what follows the image's name, such as _mask")
    add("--val-fraction", type=float, default=0.2, help="part of the pairs for validation")
    add("--seed", type=int, default=0, help="another seed splits in another way")
    add("--colors", type=Path, help="file of `R G B [name]` lines in order of ids; void: 255")
    add("--names", type=Path, help="file of class names, one a line, in order of ids")
    add("--void", nargs="+", default=[], help="unlabeled values: ids (0) or colours (0,0,0)")
    add("--config", type=Path, default=ROOT / "config", help="folder where the recipes go")
    options = parser.parse_args()
    name = dataset_name(options.out)
    splits, problems = find_pairs(options)
    items = [item for split in splits.values() for item in split]
    masks = parallel(scan_mask, [item.label for item in items], "masks")
    given = read_class_file(options.colors, options.names)
    classes = find_classes(masks, given, options.void)
    files = attribute_files(options.out, name, classes)
    for path in files:
        check_lines(path, len(classes.names))
    beside = options.images.parent.resolve() == options.masks.parent.resolve()
    plan = Plan(
        name,
        splits,
        classes.read,
        [options.images.parent] if beside else [],
        problems=problems,
        choices={
            "images": str(options.images.resolve()),
            "masks": str(options.masks.resolve()),
            "val_fraction": options.val_fraction,
            "seed": options.seed,
        },
    )
    carry_out(plan, out=options.out, copy=options.copy, strict=options.strict)
    for path, text in (files | recipes(options, name, splits["train"], len(classes.names))).items():
        write_unless_there(path, text)
    shown = ", ".join(classes.names[:20]) + (" …" if len(classes.names) > 20 else "")
    print(f"  classes: {len(classes.names)} ({shown})")


def dataset_name(out: Path) -> str:
    """The last part of --out: it names the recipes and the runs."""
    name = Path(os.path.abspath(out)).name
    if not re.fullmatch(r"[\w.-]+", name):
        raise UserError(f"--out {out} must end in a name of letters, digits, - _ . only")
    return name


def find_pairs(options: Namespace) -> tuple[dict[str, list[Item]], list[str]]:
    """Images and masks by stem -> train and val at random; and warnings."""
    if not 0 < options.val_fraction < 1:
        raise UserError(f"--val-fraction must be between 0 and 1, got {options.val_fraction}")
    out = options.out.resolve()
    for option, folder in (("--images", options.images), ("--masks", options.masks)):
        if not folder.is_dir():
            raise DataError(f"{option} {folder} is not a folder")
        if folder.resolve() in (out, *out.parents):
            raise DataError(f"--out {options.out} lies inside {option}: choose another --out")
    endings = [options.mask_suffix + ending for ending in IMAGE_SUFFIXES]
    labels = files_by_stem(options.masks, endings)
    found = set(labels.values())
    images = {s: p for s, p in files_by_stem(options.images).items() if p not in found}
    stems = [stem for stem in images if stem in labels]
    if len(stems) < 2:
        shown = " and ".join(str(next(iter(d.values()))) for d in (images, labels) if d)
        raise DataError(
            f"{len(stems)} pairs of one name among {len(images)} images of {options.images} and "
            f"{len(labels)} masks of {options.masks} ({shown or 'no file'}): at least 2 are "
            "needed; --mask-suffix _mask pairs x.jpg with x_mask.png"
        )
    _, problems = pair_up(images, labels, "pairs")
    count = min(max(1, round(options.val_fraction * len(stems))), len(stems) - 1)
    order = np.random.default_rng(options.seed).permutation(len(stems))
    raw_is_labels = options.masks.resolve() == out / "labels"
    splits = {}
    for split, chosen in (("train", order[count:]), ("val", order[:count])):
        names = [stems[i] for i in sorted(chosen)]
        splits[split], _ = pair_up(
            {stem: images[stem] for stem in names},
            {stem: labels[stem] for stem in names},
            split,
            label_folder="label_ids" if raw_is_labels else "labels",
        )
    return splits, problems


def attribute_files(out: Path, name: str, classes: Classes) -> dict[Path, str]:
    """Names and colours as texts of files beside `out`."""
    folder = Path(os.path.abspath(out)).parent
    return {
        folder / f"{name}_names.txt": "".join(f"{n}\n" for n in classes.names),
        folder / f"{name}_colors.txt": "".join(f"{r} {g} {b}\n" for r, g, b in classes.colors),
    }


def recipes(options: Namespace, name: str, train: Sequence[Item], classes: int) -> dict[Path, str]:
    """A YAML file for each network: crop and scale from the median size of the images."""
    sizes = [image_info(item.image)[1:] for item in train]
    height, width = (int(side) for side in np.median(sizes, axis=0))
    root = os.path.abspath(options.out)
    if Path(root).is_relative_to(ROOT):
        root = os.path.relpath(root, ROOT)
    template = Template((ROOT / "config/template.txt").read_text(encoding="utf-8"))
    return {
        options.config / name / f"{name}_{net}.yaml": template.substitute(
            title=f"PSPNet{layers}",
            name=name,
            net=net,
            layers=layers,
            init_weight=weight,
            root=root,
            classes=classes,
            train=len(train),
            crop_h=crop_side(height),
            crop_w=crop_side(width),
            base_size=max(height, width),
            batch_size=min(LARGEST_BATCH, len(train)),
        )
        for net, (layers, weight) in NETS.items()
    }


def crop_side(side: int) -> int:
    """The largest 8*k+1 within an image's side, from 9 to LARGEST_CROP."""
    return min(max((side - 1) // 8 * 8 + 1, 9), LARGEST_CROP)


def check_lines(path: Path, count: int) -> None:
    """Raise DataError for a file of names or colours that is of other classes."""
    if path.is_file() and len(path.read_bytes().rstrip().splitlines()) != count:
        raise DataError(
            f"{path} is there already and has not {count} lines, as many as these masks have "
            "classes: remove it or choose another --out"
        )


def write_unless_there(path: Path, text: str) -> None:
    """A file made to be edited: what is there stays."""
    if path.is_file() and path.read_bytes() != text.encode():
        print(f"  {path}: is there already, left as it is")
        return
    write_text(path, text)
    print(f"  {path}")


if __name__ == "__main__":
    run_cli(main)
