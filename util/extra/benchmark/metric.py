"""benchmark metric: counting pixels with histograms, ConfusionMatrix and torchmetrics."""

from collections.abc import Callable
from functools import partial
from typing import Any

import cv2
import numpy as np
import torch

from util.extra.benchmark.race import installed, race
from util.extra.benchmark.record import Record
from util.metric import ConfusionMatrix

CASES = (("512x683, 150 classes", (512, 683), 150), ("1024x2048, 19 classes", (1024, 2048), 19))
IGNORE = 255


def run(record: Record, *, runs: int, cases: tuple = CASES) -> None:
    """Add a row for each method and size."""
    for title, size, classes in cases:
        label, pred = maps(size, classes)
        matrix = ConfusionMatrix(classes, IGNORE)
        ways: dict[str, Callable[[], Any]] = {
            "histograms": partial(histograms, pred, label, classes),
            "ConfusionMatrix": partial(matrix.update, pred, label),
        }
        if torchmetrics := installed("torchmetrics"):
            theirs = torchmetrics.classification.MulticlassConfusionMatrix(
                classes, ignore_index=IGNORE, validate_args=False
            )
            tensors = [torch.from_numpy(ids).long() for ids in (pred, label)]
            ways["torchmetrics"] = partial(theirs.update, *tensors)
        found = race(ways, runs=runs)
        own = np.array(matrix.areas()) / (runs + 1)
        is_equal = np.array_equal(own, np.array(found["histograms"].output))
        if torchmetrics:
            is_equal &= np.array_equal(theirs.confmat.numpy(), matrix.matrix.numpy())
        for name, result in found.items():
            record.add("metric", f"{title}, {name}", **result.row(), equal=bool(is_equal))


def histograms(pred: np.ndarray, label: np.ndarray, classes: int) -> tuple[np.ndarray, ...]:
    """Count (intersection, union, target) as in published evaluation scripts."""
    pred = np.where(label == IGNORE, IGNORE, pred)
    bins = np.arange(classes + 1)
    hit = np.histogram(pred[pred == label], bins)[0]
    found, target = (np.histogram(ids, bins)[0] for ids in (pred, label))
    return hit, found + target - hit, target


def maps(size: tuple[int, int], classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Generate a label of regions, 5 % of it ignored, and a partly wrong prediction."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, classes, (2, size[0] // 32, size[1] // 32)).astype(np.uint8)
    coarse[0][rng.random(coarse[0].shape) < 0.05] = IGNORE
    label, other = (cv2.resize(c, size[::-1], interpolation=cv2.INTER_NEAREST) for c in coarse)
    pred = np.where(rng.random(size) < 0.2, other, label)
    return label, np.where(pred == IGNORE, 0, pred).astype(np.uint8)
