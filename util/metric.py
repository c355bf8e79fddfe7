"""Confusion matrix over a data set -> mIoU, mAcc and aAcc, as in the results tables."""

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

EPSILON = 1e-10  # absent classes score 0, not NaN: the convention of the published tables
STRIP = 2**16  # pixels counted at a time: fits in the cache
HISTOGRAM_STRIP = 2**24  # OpenCV counts in float32, exact up to this number


@dataclass(frozen=True)
class Scores:
    """Scores in 0..1. miou and macc are means over all classes, counting absent ones as 0.

    `absent` lists classes that occur neither in labels nor in predictions; `miou_present` is the
    mean IoU over the others. `acc_class` is recall, `precision_class` precision, and `fwiou` the
    mean IoU weighted by the number of labelled pixels.
    """

    miou: float
    macc: float
    aacc: float
    iou_class: list[float]
    acc_class: list[float]
    precision_class: list[float]
    absent: list[int]
    miou_present: float
    fwiou: float


class ConfusionMatrix:
    """Counts pixels by (label, prediction) in `matrix[l, p]`, int64, on the given device.

    Pixels labelled `ignore_label` are not counted.
    """

    def __init__(
        self, classes: int, ignore_label: int = 255, *, device: str | torch.device = "cpu"
    ) -> None:
        self.classes = classes
        self.ignore_label = ignore_label
        self.matrix = torch.zeros(classes, classes, dtype=torch.int64, device=device)

    def update(self, pred: np.ndarray | Tensor, label: np.ndarray | Tensor) -> None:
        """Count two maps of class ids of the same shape, of any integer type."""
        shapes = tuple(pred.shape), tuple(label.shape)
        assert shapes[0] == shapes[1], f"shapes differ: {shapes}"
        n, ignored = self.classes, self.ignore_label
        if self.matrix.device.type == "cpu":
            found, wanted = (
                ids.cpu().numpy() if isinstance(ids, Tensor) else ids for ids in (pred, label)
            )
            counts = count_pixels(found, wanted, classes=n, ignore_label=ignored)
            self.merge(torch.from_numpy(counts))
        else:
            maps = [_as_int64(ids).to(self.matrix.device) for ids in (pred, label)]
            self.merge(scatter_pixels(maps[0], maps[1], classes=n, ignore_label=ignored))

    def merge(self, matrix: Tensor) -> None:
        """Add another matrix of counts (classes, classes)."""
        self.matrix.add_(matrix.to(self.matrix.device))

    def areas(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return intersection, union and target (labelled pixels) per class, int64, (C,) each."""
        return matrix_areas(self.matrix.cpu().numpy())

    def scores(self) -> Scores:
        """Return the scores of all pixels counted so far."""
        intersection, union, target = self.areas()
        iou = intersection / (union + EPSILON)
        acc = intersection / (target + EPSILON)
        precision = intersection / (union - target + intersection + EPSILON)
        present = union > 0
        return Scores(
            miou=float(iou.mean()),
            macc=float(acc.mean()),
            aacc=float(intersection.sum() / (target.sum() + EPSILON)),
            iou_class=iou.tolist(),
            acc_class=acc.tolist(),
            precision_class=precision.tolist(),
            absent=np.flatnonzero(~present).tolist(),
            miou_present=float(iou[present].mean()) if present.any() else 0.0,
            fwiou=float((iou * target).sum() / (target.sum() + EPSILON)),
        )


class ImageCounts:
    """Pixel counts per image, added in any order; `total` is the ConfusionMatrix of all images.

    `image_of[l, p]` is the image with the most pixels of label l predicted as p (ties: the lowest
    number; 0 if there are no such pixels).
    """

    def __init__(self, classes: int, ignore_label: int = 255) -> None:
        self.total = ConfusionMatrix(classes, ignore_label)
        self._areas: dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
        self.image_of = np.zeros((classes, classes), np.int64)
        self._most = np.zeros((classes, classes), np.int64)

    @property
    def areas(self) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Return (intersection, union, target) of each image, ordered by image number."""
        return [self._areas[image] for image in sorted(self._areas)]

    def add(self, matrix: np.ndarray, *, image: int) -> None:
        """Count an image by its confusion matrix from `count_pixels`."""
        self.total.merge(torch.from_numpy(matrix))
        self._areas[image] = matrix_areas(matrix)
        self._keep_most(matrix, np.full_like(matrix, image))

    def merge(self, other: "ImageCounts") -> None:
        """Add the counts of other images."""
        self.total.merge(other.total.matrix)
        self._areas |= other._areas
        self._keep_most(other._most, other.image_of)

    def _keep_most(self, most: np.ndarray, image_of: np.ndarray) -> None:
        is_first = (most == self._most) & (image_of < self.image_of)
        is_better = (most > self._most) | (is_first & (most > 0))
        self._most[is_better] = most[is_better]
        self.image_of[is_better] = image_of[is_better]


def count_pixels(
    pred: np.ndarray, label: np.ndarray, *, classes: int, ignore_label: int
) -> np.ndarray:
    """Count pixels by (label, prediction), without `ignore_label`: (classes, classes) int64."""
    if pred.dtype == label.dtype == np.uint8 and classes <= 256:
        return _count_bytes(pred, label, classes=classes, ignore_label=ignore_label)
    preds, labels = pred.reshape(-1), label.reshape(-1)
    counts = np.zeros(classes * classes + 1, np.int64)  # the last cell is for ignored pixels
    for start in range(0, preds.size, STRIP):
        strip = slice(start, start + STRIP)
        rows = labels[strip].astype(np.int64)
        cells = rows * classes + preds[strip].astype(np.int64)
        cells[rows == ignore_label] = classes * classes
        counts += np.bincount(cells, minlength=counts.size)
    return counts[:-1].reshape(classes, classes)


def _count_bytes(
    pred: np.ndarray, label: np.ndarray, *, classes: int, ignore_label: int
) -> np.ndarray:
    """Like `count_pixels` for maps of uint8, several times as fast."""
    counts = np.zeros((classes, classes), np.int64)
    preds, labels = pred.reshape(1, -1), label.reshape(1, -1)
    for start in range(0, preds.size, HISTOGRAM_STRIP):
        strip = slice(start, start + HISTOGRAM_STRIP)
        maps = labels[:, strip], preds[:, strip]
        sides, ranges = [classes, classes], [0, classes, 0, classes]
        counts += cv2.calcHist(maps, [0, 1], None, sides, ranges).astype(np.int64)
    if ignore_label < classes:
        counts[ignore_label] = 0
    outside = np.count_nonzero(labels != ignore_label) - counts.sum()
    assert not outside, f"{outside} pixels have ids outside 0..{classes - 1}"
    return counts


def scatter_pixels(pred: Tensor, label: Tensor, *, classes: int, ignore_label: int) -> Tensor:
    """Like `count_pixels` for int64 tensors; unlike bincount without synchronising with a GPU."""
    # An extra cell for ignored pixels avoids a masked copy.
    counts = torch.zeros(classes * classes + 1, dtype=torch.int64, device=label.device)
    cells = torch.where(label == ignore_label, classes * classes, label * classes + pred).flatten()
    counts.scatter_add_(0, cells, torch.ones_like(cells))
    return counts[:-1].view(classes, classes)


def matrix_areas(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return intersection, union and target (labelled pixels) per class, (C,) each."""
    intersection, target = matrix.diagonal().copy(), matrix.sum(axis=1)
    return intersection, target + matrix.sum(axis=0) - intersection, target


def _as_int64(ids: np.ndarray | Tensor) -> Tensor:
    # NumPy converts first: torch has no arithmetic on 16-bit unsigned maps.
    tensor = ids if isinstance(ids, Tensor) else torch.from_numpy(ids.astype(np.int64))
    return tensor.to(torch.int64)
