"""Confusion matrix over a whole set -> mIoU, mAcc, aAcc, as in the results tables."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

EPSILON = 1e-10  # an absent class counts 0, not NaN: the convention of the published tables
STRIP = 2**16  # pixels counted at a time: in the processor's cache 12 times faster than all at once


@dataclass(frozen=True)
class Scores:
    """Fractions in 0..1. Headline means are over all classes, absent ones counted as 0.

    `absent` lists classes that occur neither in labels nor in predictions; `miou_present` is the
    mean IoU over the others. `acc_class` is the share of a class's pixels that were found (recall),
    `precision_class` the share of the pixels given to a class that are of it, `fwiou` the mean IoU
    weighted by the classes' pixels.
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
    """Counts pixels by (label, prediction). `matrix[l, p]` is int64, on the given device.

    Pixels labelled `ignore_label` are left out.
    """

    def __init__(
        self, classes: int, ignore_label: int = 255, *, device: str | torch.device = "cpu"
    ) -> None:
        self.classes = classes
        self.ignore_label = ignore_label
        self.matrix = torch.zeros(classes, classes, dtype=torch.int64, device=device)

    def update(self, pred: np.ndarray | Tensor, label: np.ndarray | Tensor) -> None:
        """Add maps of class ids of one shape, any integer type."""
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
        """Pixels per class as int64: intersection, union, target (all pixels of that label)."""
        return matrix_areas(self.matrix.cpu().numpy())

    def scores(self) -> Scores:
        """The scores of everything counted so far."""
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
    """A set counted image by image, in any order: `total` is its ConfusionMatrix.

    `image_of[l, p]` is the image with the most pixels of label l that were predicted p (the
    first of equals; 0 where there is none).
    """

    def __init__(self, classes: int, ignore_label: int = 255) -> None:
        self.total = ConfusionMatrix(classes, ignore_label)
        self._areas: dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
        self.image_of = np.zeros((classes, classes), np.int64)
        self._most = np.zeros((classes, classes), np.int64)

    @property
    def areas(self) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """(intersection, union, target) of the images in the order of their numbers."""
        return [self._areas[image] for image in sorted(self._areas)]

    def add(self, pred: np.ndarray, label: np.ndarray, *, image: int) -> None:
        """Count an image: maps of class ids of one shape."""
        total = self.total
        self.add_matrix(
            count_pixels(pred, label, classes=total.classes, ignore_label=total.ignore_label),
            image=image,
        )

    def add_matrix(self, matrix: np.ndarray, *, image: int) -> None:
        """The same, from what `count_pixels` gave."""
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
    """Pixels by (label, prediction): (classes, classes) int64, those of `ignore_label` left out."""
    preds, labels = pred.reshape(-1), label.reshape(-1)
    counts = np.zeros(classes * classes + 1, np.int64)  # the last cell takes the ignored pixels
    for start in range(0, preds.size, STRIP):
        strip = slice(start, start + STRIP)
        rows = labels[strip].astype(np.int64)
        cells = rows * classes + preds[strip].astype(np.int64)
        cells[rows == ignore_label] = classes * classes
        counts += np.bincount(cells, minlength=counts.size)
    return counts[:-1].reshape(classes, classes)


def scatter_pixels(pred: Tensor, label: Tensor, *, classes: int, ignore_label: int) -> Tensor:
    """The same of int64 tensors, on their device: without a wait for a GPU, as bincount has."""
    # One more cell takes the ignored pixels: counting them there needs no masked copy.
    counts = torch.zeros(classes * classes + 1, dtype=torch.int64, device=label.device)
    cells = torch.where(label == ignore_label, classes * classes, label * classes + pred).flatten()
    counts.scatter_add_(0, cells, torch.ones_like(cells))
    return counts[:-1].view(classes, classes)


def matrix_areas(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels per class: intersection, union, target (all pixels of that label), (C,) each."""
    intersection, target = matrix.diagonal().copy(), matrix.sum(axis=1)
    return intersection, target + matrix.sum(axis=0) - intersection, target


def _as_int64(ids: np.ndarray | Tensor) -> Tensor:
    # NumPy converts first: torch has no arithmetic on 16-bit unsigned maps.
    tensor = ids if isinstance(ids, Tensor) else torch.from_numpy(ids.astype(np.int64))
    return tensor.to(torch.int64)
