"""Pixel and image counts per class, and class weights derived from them."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from util.data.label import count_ids
from util.data.label_map import LabelMap
from util.data.load import load_label
from util.error import ConfigError
from util.extra.parallel import in_threads


@dataclass(frozen=True)
class ClassCounts:
    """Counts over a set of labels, int64 arrays (classes,).

    `pixels` of each class, `images` that contain it, and all labelled pixels of those images.
    """

    pixels: np.ndarray
    images: np.ndarray
    pixels_of_images: np.ndarray

    def median_weights(self) -> list[float]:
        """Return median frequency weights (Eigen and Fergus 2015): median(f) / f_c.

        f_c = pixels of class c / labelled pixels of the images that contain it. Absent classes
        get 1.
        """
        present = self.pixels > 0
        if not present.any():
            return [1.0] * len(present)
        frequency = self.pixels[present] / self.pixels_of_images[present]
        weights = np.ones(len(present))
        weights[present] = np.median(frequency) / frequency
        return [float(f"{w:.4g}") for w in weights]


def count_classes(histograms: Iterable[Mapping[int, int]], *, classes: int) -> ClassCounts:
    """Sum up the images' histograms (class id -> pixels); ids that are not classes are ignored."""
    pixels, images, pixels_of_images = np.zeros((3, classes), np.int64)
    for histogram in histograms:
        inside = {i: n for i, n in histogram.items() if 0 <= i < classes}
        ids = list(inside)
        pixels[ids] += np.array(list(inside.values()), np.int64)
        images[ids] += 1
        pixels_of_images[ids] += sum(inside.values())
    return ClassCounts(pixels, images, pixels_of_images)


def mapped_histogram(raw: Mapping[int, int], label_map: LabelMap) -> Counter[int]:
    """Convert a histogram of raw ids to one of class ids; -1 collects unmapped ids."""
    histogram: Counter[int] = Counter()
    for i, class_id in label_map.classes_of(raw).items():
        histogram[class_id] += raw[i]
    return histogram


def median_weights(labels: Sequence[Path], label_map: LabelMap, *, classes: int) -> list[float]:
    """Read all label files and return their median frequency weights. Raises DataError."""
    histograms = in_threads(lambda p: count_ids(load_label(p, label_map)), labels, "labels")
    return count_classes(histograms, classes=classes).median_weights()


def read_weights(path: Path, *, classes: int) -> list[float]:
    """Read `class_weights` from the output of tool/check_data.py --json. Raises ConfigError."""
    if not path.is_file():
        raise ConfigError(
            f"TRAIN.class_weights {path} does not exist: give a list of numbers, median or a file "
            "written by tool/check_data.py --json"
        )
    try:
        weights = [float(w) for w in json.loads(path.read_text(encoding="utf-8"))["class_weights"]]
    except (ValueError, TypeError, KeyError):
        raise ConfigError(
            f'TRAIN.class_weights {path} is not JSON with a list "class_weights": write it with '
            "tool/check_data.py --json"
        ) from None
    if len(weights) != classes or not all(0 <= weight <= 1e6 for weight in weights):
        raise ConfigError(
            f"TRAIN.class_weights {path} holds {len(weights)} numbers, but {classes} from 0 to "
            f"1000000 are needed, one per class (DATA.classes {classes}): run tool/check_data.py "
            "again"
        )
    return weights
