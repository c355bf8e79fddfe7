"""Prepares PASCAL VOC 2012 (21 classes) with the SBD annotations for config/voc2012.

    python tool/prepare_voc2012.py --source VOCdevkit/VOC2012 --sbd benchmark_RELEASE \\
        --out dataset/voc2012

train_aug is VOC's train set and all of SBD that is not in VOC's val set. Images of VOC keep
VOC's own labels; the others get SBD's .mat files, or the PNG files of a SegmentationClassAug
folder, if that is in the source or named by --sbd. Downloads: VOCtrainval_11-May-2012.tar of
http://host.robots.ox.ac.uk/pascal/VOC/voc2012, benchmark.tgz of
https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from util.error import DataError, run_cli  # isort: split

import numpy as np
from scipy.io import loadmat

from util.extra.prepare.files import VOID, Item, files_by_stem, find_root, id_reader, translate
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
        help="benchmark_RELEASE or SegmentationClassAug folder (default: looked for in --source)",
    )
    options = parser.parse_args()
    plan = plan_voc2012(options.source, options.sbd)
    carry_out(plan, options)


def plan_voc2012(source: Path, sbd: Path | None) -> Plan:
    """VOC's lists and SBD's labels -> train_aug, train and val."""
    root = find_root(
        source,
        FOLDERS,
        below=("VOC2012", "VOCdevkit/VOC2012"),
        example="ImageSets/Segmentation/train.txt",
    )
    train, val = (read_names(root / f"ImageSets/Segmentation/{s}.txt") for s in ("train", "val"))
    images = files_by_stem(root / "JPEGImages", ".jpg")
    more_images, more_labels = find_more(root, source, sbd)
    images = more_images | images
    labels = more_labels | files_by_stem(root / "SegmentationClass", ".png")
    extra = sorted(set(more_labels) - set(val) - set(train))
    wanted = {"train_aug": sorted({*train, *extra}) if extra else [], "train": train, "val": val}
    splits, problems = {}, []
    for split, names in wanted.items():
        have = [name for name in names if name in images and name in labels]
        splits[split] = [
            Item(images[name], f"images/{name}.jpg", labels[name], f"labels/{name}.png")
            for name in have
        ]
        if len(have) < len(names):
            gone = next(name for name in names if name not in have)
            problems.append(
                f"{split}: {len(names) - len(have)} images left out whose image or label is "
                f"missing, such as {gone}"
            )
    if not extra:
        problems.append(
            "no list/train_aug.txt without SBD: give --sbd benchmark_RELEASE, or put a "
            f"SegmentationClassAug folder into {root}"
        )
    raw = (root, source)
    return Plan("voc2012", splits, read_voc_label, raw, official=OFFICIAL, problems=problems)


def read_names(path: Path) -> list[str]:
    if not path.is_file():
        raise DataError(f"no list {path}: it comes with VOCtrainval_11-May-2012.tar")
    return path.read_text(encoding="utf-8").split()


def find_more(
    root: Path, source: Path, sbd: Path | None
) -> tuple[dict[str, Path], dict[str, Path]]:
    """Images and labels beyond VOC's own, by name: from SBD or SegmentationClassAug; else none.

    SBD has cls/<name>.mat and img/<name>.jpg in its `dataset` folder.
    """
    if sbd is not None and next(sbd.glob("*.png"), None):
        return {}, files_by_stem(sbd, ".png")
    if sbd is not None:
        folder = find_root(
            sbd,
            ("cls", "img"),
            below=("dataset", "benchmark_RELEASE/dataset"),
            example="cls/2008_000002.mat",
            option="--sbd",
        )
        return files_by_stem(folder / "img", ".jpg"), files_by_stem(folder / "cls", ".mat")
    for place in (
        root / "SegmentationClassAug",
        *(p / "benchmark_RELEASE" for p in (root, source)),
    ):
        if place.is_dir():
            return find_more(root, source, place)
    return {}, {}


read_png = id_reader(TABLE, EXPECTED)


def read_voc_label(path: Path) -> np.ndarray:
    """Ids (H, W) of a palette PNG, or of an SBD file: GTcls[0].Segmentation."""
    if path.suffix == ".png":
        return read_png(path)
    try:
        raw = np.asarray(loadmat(path)["GTcls"]["Segmentation"][0, 0])
    except Exception as error:  # scipy raises many kinds for a damaged file
        raise DataError(f"{path} is not an SBD label file ({error})") from None
    ids = translate(raw, TABLE)
    if ids.ndim != 2 or ids.min() < 0:
        raise DataError(f"{path} must hold a map of ids: {EXPECTED}")
    return ids


if __name__ == "__main__":
    run_cli(main)
