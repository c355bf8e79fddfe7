"""Prepare BDD100K: semantic segmentation (Cityscapes' 19 classes) or drivable area (3 classes).

    python tool/prepare_bdd100k.py --source bdd100k --out dataset/bdd100k
    python tool/prepare_bdd100k.py --source bdd100k --task drivable --out dataset/bdd100k_drivable

Supports the current layout (labels/sem_seg/masks, labels/drivable/masks with images/10k,
images/100k) and that of 2018 (seg/, drivable_maps/). Drivable classes: direct, alternative,
background.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from util.error import run_cli  # isort: split

from util.extra.prepare.files import (
    VOID,
    find_files,
    find_root,
    label_reader,
    pair_up,
    without_labels,
)
from util.extra.prepare.write import Plan, carry_out, prepare_parser


@dataclass(frozen=True)
class Layout:
    """Where a release keeps the files of a task, and how its ids map to ours."""

    images: str
    labels: str
    pattern: str  # of label files
    table: dict[int, int]


SEMANTIC = {**{i: i for i in range(19)}, VOID: VOID}
DRIVABLE = {0: 0, 1: 1, 2: 2, VOID: VOID}
DRIVABLE_2018 = {1: 0, 2: 1, 0: 2, VOID: VOID}  # background was 0
LAYOUTS = {
    "semantic": (
        Layout("images/10k", "labels/sem_seg/masks", "*.png", SEMANTIC),
        Layout("seg/images", "seg/labels", "*_train_id.png", SEMANTIC),
    ),
    "drivable": (
        Layout("images/100k", "labels/drivable/masks", "*.png", DRIVABLE),
        Layout("images/100k", "drivable_maps/labels", "*_drivable_id.png", DRIVABLE_2018),
    ),
}
SPLITS = ("train", "val")
NAMES = {"semantic": "bdd100k", "drivable": "bdd100k_drivable"}
OFFICIAL = {
    "semantic": {"train": 7000, "val": 1000, "test": 2000},
    "drivable": {"train": 70000, "val": 10000, "test": 20000},
}


def main() -> None:
    parser = prepare_parser(__doc__, source="the unpacked bdd100k folder")
    parser.add_argument("--task", choices=tuple(LAYOUTS), default="semantic", help="which labels")
    options = parser.parse_args()
    carry_out(plan_bdd100k(options.source, options.task), options)


def plan_bdd100k(source: Path, task: str) -> Plan:
    """Pair images with the masks of `task`: train and val, and test without labels."""
    root, layout = find_layout(source, task)
    splits = {
        split: pair_up(
            find_files(root / layout.images / split),
            find_files(root / layout.labels / split, layout.pattern),
            split,
        )
        for split in SPLITS
    }
    splits["test"] = without_labels(find_files(root / layout.images / "test"), "test")
    expected = f"masks of {layout.labels} hold {', '.join(map(str, layout.table))}"
    read = label_reader(layout.table, expected)
    return Plan(NAMES[task], splits, read, (root, source), OFFICIAL[task])


def find_layout(source: Path, task: str) -> tuple[Path, Layout]:
    """Find the folder and layout of the release in `source`; default: the current layout."""
    present, old = LAYOUTS[task]
    is_old = any((root / old.labels).is_dir() for root in (source, source / "bdd100k"))
    layout = old if is_old else present
    root = find_root(
        source,
        [f"{kind}/{split}" for kind in (layout.images, layout.labels) for split in SPLITS],
        below=("bdd100k",),
        example=f"{layout.labels}/train/{layout.pattern.replace('*', '0004a4c0-d4dff0ad')}",
    )
    return root, layout


if __name__ == "__main__":
    run_cli(main)
