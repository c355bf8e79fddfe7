"""Prepare ADE20K (scene parsing benchmark, 150 classes) for config/ade20k.

    python tool/prepare_ade20k.py --source ADEChallengeData2016 --out dataset/ade20k

Raw ids 1..150 become 0..149 and 0 (other) becomes 255. Download: ADEChallengeData2016.zip from
http://sceneparsing.csail.mit.edu
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from util.error import DataError, run_cli  # isort: split

from util.data.label_map import load_label_map
from util.extra.prepare.files import VOID, find_files, find_root, label_reader, pair_up
from util.extra.prepare.write import Plan, carry_out, prepare_parser

OFFICIAL = {"training": 20210, "validation": 2000}
FOLDERS = [f"{kind}/{split}" for kind in ("images", "annotations") for split in OFFICIAL]
TABLE = load_label_map("ade20k", classes=150, ignore_label=VOID).table
EXPECTED = "the benchmark's labels hold 0 (other) and 1..150; was this file converted already?"


def main() -> None:
    options = prepare_parser(
        __doc__, source="the unpacked ADEChallengeData2016 folder"
    ).parse_args()
    carry_out(plan_ade20k(options.source), options)


def plan_ade20k(source: Path) -> Plan:
    """Pair images/<split>/*.jpg with annotations/<split>/*.png: training and validation."""
    refuse_full_release(source)
    root = find_root(
        source,
        FOLDERS,
        below=("ADEChallengeData2016",),
        example="images/training/ADE_train_00000001.jpg",
    )
    splits = {
        split: pair_up(
            find_files(root / "images" / split),
            find_files(root / "annotations" / split, "*.png"),
            split,
        )
        for split in OFFICIAL
    }
    return Plan("ade20k", splits, label_reader(TABLE, EXPECTED), (root, source), OFFICIAL)


def refuse_full_release(source: Path) -> None:
    """Raise DataError for the full ADE20K release (2016 or 2021), which is not the benchmark.

    It has one folder per scene, labels as *_seg.png and thousands of classes in index_ade20k.*.
    """
    for folder in (source, *source.glob("ADE20K_20*"), *source.glob("dataset")):
        for mark in ("index_ade20k.pkl", "index_ade20k.mat", "images/ADE"):
            if (folder / mark).exists():
                raise DataError(
                    f"--source {source} is the full ADE20K release (it holds {folder / mark}), "
                    "which has other classes and no benchmark ids: download "
                    "ADEChallengeData2016.zip from http://sceneparsing.csail.mit.edu instead"
                )


if __name__ == "__main__":
    run_cli(main)
