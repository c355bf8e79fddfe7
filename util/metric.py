"""Confusion matrix over a whole set -> mIoU, mAcc, aAcc, as in the results tables."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

EPSILON = 1e-10  # an absent class counts 0, not NaN: the convention of the published tables


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
        # One more cell takes the ignored pixels: counting them there costs no masked copy and, on
        # a GPU, no wait.
        self._counts = torch.zeros(classes * classes + 1, dtype=torch.int64, device=device)

    @property
    def matrix(self) -> Tensor:
        """(classes, classes) int64, rows = labels, columns = predictions."""
        return self._counts[:-1].view(self.classes, self.classes)

    def update(self, pred: np.ndarray | Tensor, label: np.ndarray | Tensor) -> None:
        """Add maps of class ids of one shape, any integer type."""
        device = self._counts.device
        pred, label = (_as_int64(ids).to(device) for ids in (pred, label))
        assert pred.shape == label.shape, (
            f"shapes differ: {tuple(pred.shape)}, {tuple(label.shape)}"
        )
        cells = torch.where(
            label == self.ignore_label, self._counts.numel() - 1, label * self.classes + pred
        )
        cells = cells.flatten()
        if device.type == "cpu":  # bincount is the faster one here, but waits for a GPU
            self._counts += torch.bincount(cells, minlength=self._counts.numel())
        else:
            self._counts.scatter_add_(0, cells, torch.ones_like(cells))

    def merge(self, matrix: Tensor) -> None:
        """Add another matrix of counts (classes, classes)."""
        self.matrix.add_(matrix.to(self._counts.device))

    def areas(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Pixels per class as int64: intersection, union, target (all pixels of that label)."""
        matrix = self.matrix.cpu().numpy()
        intersection, target = matrix.diagonal().copy(), matrix.sum(axis=1)
        return intersection, target + matrix.sum(axis=0) - intersection, target

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


class PictureCounts:
    """A set counted picture by picture: `total` is its ConfusionMatrix.

    `areas[i]` are picture i's (intersection, union, target), and `picture_of[l, p]` is the picture
    with the most pixels of label l that were predicted p (0 where there is none).
    """

    def __init__(self, classes: int, ignore_label: int = 255) -> None:
        self.total = ConfusionMatrix(classes, ignore_label)
        self.areas: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self.picture_of = np.zeros((classes, classes), np.int64)
        self._most = np.zeros((classes, classes), np.int64)

    def add(self, pred: np.ndarray, label: np.ndarray) -> None:
        """Count the next picture: maps of class ids of one shape."""
        picture = ConfusionMatrix(self.total.classes, self.total.ignore_label)
        picture.update(pred, label)
        self.total.merge(picture.matrix)
        matrix = picture.matrix.numpy()
        is_more = matrix > self._most
        self._most[is_more], self.picture_of[is_more] = matrix[is_more], len(self.areas)
        self.areas.append(picture.areas())


def _as_int64(ids: np.ndarray | Tensor) -> Tensor:
    # NumPy converts first: torch has no arithmetic on 16-bit unsigned maps.
    tensor = ids if isinstance(ids, Tensor) else torch.from_numpy(ids.astype(np.int64))
    return tensor.to(torch.int64)
