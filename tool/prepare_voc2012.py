"""Prepare PASCAL VOC 2012 (21 classes) with the SBD annotations for config/voc2012.

    python tool/prepare_voc2012.py --source VOCdevkit/VOC2012 --sbd benchmark_RELEASE \\
        --out dataset/voc2012

train_aug is VOC's train set plus all of SBD that is not in VOC's val set. VOC images keep VOC's
labels; the others get SBD's .mat files or the PNG files of a SegmentationClassAug folder (in the
source or given by --sbd). Downloads: VOCtrainval_11-May-2012.tar from
http://host.robots.ox.ac.uk/pascal/VOC/voc2012, benchmark.tgz from
https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from util.error import DataError, run_cli  # isort: split

import numpy as np
from scipy.io import loadmat

from util.data.image import read_label
from util.extra.prepare.files import VOID, Item, Named, Split, find_files, find_root, to_ids
from util.extra.prepare.write import Plan, carry_out, prepare_parser

OFFICIAL = {"train_aug": 10582, "train": 1464, "val": 1449}
FOLDERS = ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation")
TABLE = {**{i: i for i in range(21)}, VOID: VOID}
EXPECTED = "VOC's classes are 0..20, and 255"


def main() -> None:
    parser = prepare_parser(__doc__, source="the unpacked VOC2012 folder")
    parser.add_argument(
        "--sbd",
        type=Path,
        help="benchmark_RELEASE or SegmentationClassAug folder (default: searched in --source)",
    )
    options = parser.parse_args()
    carry_out(plan_voc2012(options.source, options.sbd), options)


def plan_voc2012(source: Path, sbd: Path | None) -> Plan:
    """Combine VOC's lists and SBD's labels: train_aug, train and val."""
    root = find_root(
        source,
        FOLDERS,
        below=("VOC2012", "VOCdevkit/VOC2012"),
        example="ImageSets/Segmentation/train.txt",
    )
    train, val = (read_names(root / f"ImageSets/Segmentation/{s}.txt") for s in ("train", "val"))
    more_images, more_labels = find_more(root, source, sbd)
    images = more_images | find_files(root / "JPEGImages", "*.jpg")
    labels = more_labels | find_files(root / "SegmentationClass", "*.png")

    def listed(split: str, names: list[str]) -> Split:
        have = [name for name in names if name in images and name in labels]
        items = [Item(images[n], f"images/{n}.jpg", labels[n], f"labels/{n}.png") for n in have]
        gone = [name for name in names if name not in images or name not in labels]
        what = f"{split}: {len(gone)} entries skipped because the image or label is missing"
        return Split(items, [f"{what}, such as {gone[0]}"] if gone else [])

    train_aug = Split(
        [],
        [
            "no list/train_aug.txt without SBD: give --sbd benchmark_RELEASE, or put a "
            f"SegmentationClassAug folder into {root}"
        ],
    )
    if extra := more_labels.keys() - {*train, *val}:
        train_aug = listed("train_aug", sorted({*train, *extra}))
    splits = {"train_aug": train_aug, "train": listed("train", train), "val": listed("val", val)}
    return Plan("voc2012", splits, read_voc_label, (root, source), OFFICIAL)


def read_names(path: Path) -> list[str]:
    if not path.is_file():
        raise DataError(f"no list {path}: it comes with VOCtrainval_11-May-2012.tar")
    return path.read_text(encoding="utf-8").split()


def find_more(root: Path, source: Path, sbd: Path | None) -> tuple[Named, Named]:
    """Find images and labels beyond VOC's, by name, in SBD or SegmentationClassAug.

    SBD has cls/<name>.mat and img/<name>.jpg in its `dataset` folder.
    """
    if sbd is not None and next(sbd.glob("*.png"), None):
        return {}, find_files(sbd, "*.png")
    if sbd is not None:
        folder = find_root(
            sbd,
            ("cls", "img"),
            below=("dataset", "benchmark_RELEASE/dataset"),
            example="cls/2008_000002.mat",
            option="--sbd",
        )
        return find_files(folder / "img", "*.jpg"), find_files(folder / "cls", "*.mat")
    for place in (
        root / "SegmentationClassAug",
        *(p / "benchmark_RELEASE" for p in (root, source)),
    ):
        if place.is_dir():
            return find_more(root, source, place)
    return {}, {}


def read_voc_label(path: Path) -> np.ndarray:
    """Read ids (H, W) from a palette PNG or an SBD file (GTcls[0].Segmentation)."""
    if path.suffix == ".png":
        return to_ids(read_label(path), TABLE, path, EXPECTED)
    try:
        raw = np.asarray(loadmat(path)["GTcls"]["Segmentation"][0, 0])
        if raw.ndim != 2:
            raise ValueError(f"it holds an array of {raw.ndim} dimensions")
    except Exception as error:  # scipy raises many types of errors for damaged files
        raise DataError(f"{path} is not an SBD label file ({error})") from None
    return to_ids(raw, TABLE, path, EXPECTED)


if __name__ == "__main__":
    run_cli(main)
