"""Prepares Cityscapes (fine annotations, 19 classes) for config/cityscapes.

    python tool/prepare_cityscapes.py --source cityscapes --out dataset/cityscapes

The source holds leftImg8bit/ and gtFine/ as unpacked from leftImg8bit_trainvaltest.zip and
gtFine_trainvaltest.zip of https://www.cityscapes-dataset.com. Names stay the official ones;
*_gtFine_labelTrainIds.png are made from *_gtFine_labelIds.png.
"""

import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from util.error import run_cli  # isort: split

from util.data.label_map import load_label_map
from util.extra.prepare.files import VOID, Item, files_by_stem, find_root, id_reader, pair_up
from util.extra.prepare.write import Plan, carry_out, prepare_parser

OFFICIAL = {"fine_train": 2975, "fine_val": 500, "fine_test": 1525}
FOLDERS = [f"{kind}/{split}" for kind in ("leftImg8bit", "gtFine") for split in ("train", "val")]
TABLE = load_label_map("cityscapes", ignore_ids=(), classes=19, ignore_label=VOID).table
EXPECTED = "labelIds files hold 0..33"
IMAGE_END, RAW_END, LABEL_END = (
    "_leftImg8bit.png",
    "_gtFine_labelIds.png",
    "_gtFine_labelTrainIds.png",
)


def main() -> None:
    parser = prepare_parser(__doc__, source="the folder of leftImg8bit/ and gtFine/")
    options = parser.parse_args()
    plan = plan_cityscapes(options.source)
    carry_out(plan, options)


def plan_cityscapes(source: Path) -> Plan:
    """leftImg8bit/<split>/<city>/ with gtFine/<split>/<city>/ -> fine_train, fine_val, fine_test
    (images alone: the labels of the test split are not public)."""
    root = find_root(
        source,
        FOLDERS,
        below=("cityscapes",),
        example="gtFine/train/aachen/aachen_000000_000019_gtFine_labelIds.png",
    )
    splits, problems = {}, []
    for split in ("train", "val"):
        images = files_by_stem(root / "leftImg8bit" / split, IMAGE_END)
        labels = files_by_stem(root / "gtFine" / split, RAW_END)
        items, single = pair_up(images, labels, split)
        splits[f"fine_{split}"] = [with_official_names(item, root) for item in items]
        problems += single
    test = files_by_stem(root / "leftImg8bit/test", IMAGE_END).values()
    splits["fine_test"] = [Item(path, path.relative_to(root).as_posix()) for path in test]
    read = id_reader(TABLE, EXPECTED)
    return Plan("cityscapes", splits, read, (root, source), official=OFFICIAL, problems=problems)


def with_official_names(item: Item, root: Path) -> Item:
    assert item.label is not None
    label_name = item.label.relative_to(root).as_posix()
    return replace(
        item,
        image_name=item.image.relative_to(root).as_posix(),
        label_name=label_name.removesuffix(RAW_END) + LABEL_END,
    )


if __name__ == "__main__":
    run_cli(main)
