"""Prepare Cityscapes (fine annotations, 19 classes) for config/cityscapes.

    python tool/prepare_cityscapes.py --source cityscapes --out dataset/cityscapes

The source has leftImg8bit/ and gtFine/ as unpacked from leftImg8bit_trainvaltest.zip and
gtFine_trainvaltest.zip from https://www.cityscapes-dataset.com. Official file names are kept;
*_gtFine_labelTrainIds.png are created from *_gtFine_labelIds.png.
"""

import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from util.error import run_cli  # isort: split

from util.data.label_map import load_label_map
from util.extra.prepare.files import (
    VOID,
    Item,
    Split,
    find_files,
    find_root,
    label_reader,
    pair_up,
    without_labels,
)
from util.extra.prepare.write import Plan, carry_out, prepare_parser

OFFICIAL = {"fine_train": 2975, "fine_val": 500, "fine_test": 1525}
FOLDERS = [f"{kind}/{split}" for kind in ("leftImg8bit", "gtFine") for split in ("train", "val")]
TABLE = load_label_map("cityscapes", classes=19, ignore_label=VOID).table
EXPECTED = "labelIds files hold 0..33"
IMAGES, LABELS = "*_leftImg8bit.png", "*_gtFine_labelIds.png"


def main() -> None:
    options = prepare_parser(__doc__, source="folder with leftImg8bit/ and gtFine/").parse_args()
    carry_out(plan_cityscapes(options.source), options)


def plan_cityscapes(source: Path) -> Plan:
    """Pair leftImg8bit/<split>/<city>/ with gtFine/...: fine_train, fine_val, fine_test.

    The test split has no public labels.
    """
    root = find_root(
        source,
        FOLDERS,
        below=("cityscapes",),
        example="gtFine/train/aachen/aachen_000000_000019_gtFine_labelIds.png",
    )
    images = {s: find_files(root / "leftImg8bit" / s, IMAGES) for s in ("train", "val", "test")}
    labels = {s: find_files(root / "gtFine" / s, LABELS) for s in ("train", "val")}
    paired = {s: pair_up(images[s], labels[s], s) for s in labels}
    paired["test"] = without_labels(images["test"], "test")
    splits = {f"fine_{s}": with_official_names(split, root) for s, split in paired.items()}
    return Plan("cityscapes", splits, label_reader(TABLE, EXPECTED), (root, source), OFFICIAL)


def with_official_names(split: Split, root: Path) -> Split:
    """Keep the names below `root`; labels become *_gtFine_labelTrainIds.png."""

    def renamed(item: Item) -> Item:
        image_name = item.image.relative_to(root).as_posix()
        label_name = item.label.relative_to(root).as_posix() if item.label else ""
        label_name = label_name.replace("_labelIds.png", "_labelTrainIds.png")
        return replace(item, image_name=image_name, label_name=label_name)

    return replace(split, items=[renamed(item) for item in split.items])


if __name__ == "__main__":
    run_cli(main)
