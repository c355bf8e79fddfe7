"""Confidence intervals of scores by bootstrapping over images (Efron, 1979)."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

DRAWS = 1000  # leaves 25 draws beyond each end of a 95 % interval
SEED = 0
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Areas:
    """Pixel counts per image and class, (N, C) int64 each; `target` counts labelled pixels."""

    intersection: np.ndarray
    union: np.ndarray
    target: np.ndarray

    @classmethod
    def stack(cls, images: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> "Areas":
        """Stack the (intersection, union, target), each (C,), of all images."""
        return cls(*(np.stack(rows) for rows in zip(*images, strict=True)))

    def image_miou(self) -> np.ndarray:
        """Mean IoU of each image over the classes in its label or prediction, (N,); NaN if none."""
        return _mean_of_present(*_iou(self.intersection, self.union))


@dataclass(frozen=True)
class Intervals:
    """95 % intervals (low, high) of the mean IoU, (2,), and of each class's IoU, (C, 2).

    NaN for classes absent from all images.
    """

    miou: np.ndarray
    iou_class: np.ndarray


def draw_counts(images: int, *, draws: int = DRAWS, seed: int = SEED) -> np.ndarray:
    """Draw N of N images with replacement, `draws` times; return counts (draws, N) float64."""
    rng = np.random.default_rng(seed)
    counts = np.empty((draws, images))
    for row in counts:
        row[:] = np.bincount(rng.integers(0, images, images), minlength=images)
    return counts


def intervals(areas: Areas, counts: np.ndarray) -> Intervals:
    """Return the intervals of one result; `counts` (draws, N) comes from `draw_counts`.

    A class absent from all images scores 0, as in mIoU. A class absent only from a draw is excluded
    from the mean of that draw: its IoU there is unknown, not 0.
    """
    iou, is_present = _resample(areas, counts)
    held = is_present.any(axis=0).mean()
    mean = _mean_of_present(iou, is_present) * held
    return Intervals(
        miou=_percentiles(mean[:, None])[0],
        iou_class=_percentiles(np.where(is_present, iou, np.nan)),
    )


def difference_intervals(first: Areas, second: Areas, counts: np.ndarray) -> Intervals:
    """Return the intervals of `second` minus `first`.

    Paired: both use the same draws of the same images, so that the images' difficulty cancels.
    """
    (iou_1, is_present_1), (iou_2, is_present_2) = (_resample(a, counts) for a in (first, second))
    difference, is_present = iou_2 - iou_1, is_present_1 | is_present_2
    held = is_present.any(axis=0).mean()
    mean = _mean_of_present(difference, is_present) * held
    return Intervals(
        miou=_percentiles(mean[:, None])[0],
        iou_class=_percentiles(np.where(is_present, difference, np.nan)),
    )


def _resample(areas: Areas, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    # Sum areas by matrix product: float64 is exact up to 2**53 pixels.
    return _iou(counts @ areas.intersection, counts @ areas.union)


def _iou(intersection: np.ndarray, union: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the IoU, 0 for absent classes, and a mask of the present ones."""
    return intersection / np.maximum(union, 1), union > 0


def _mean_of_present(values: np.ndarray, is_present: np.ndarray) -> np.ndarray:
    """Mean over the present classes: (M, C) -> (M,), NaN if there are none."""
    number = is_present.sum(axis=1)
    sums = np.where(is_present, values, 0).sum(axis=1)
    return np.where(number > 0, sums / np.maximum(number, 1), np.nan)


def _percentiles(values: np.ndarray) -> np.ndarray:
    """Percentiles over draws, ignoring NaN: (draws, K) -> (K, 2)."""
    out = np.full((values.shape[1], 2), np.nan)
    is_known = ~np.isnan(values).all(axis=0)
    tail = 50 * (1 - CONFIDENCE)
    if is_known.any():
        out[is_known] = np.nanpercentile(values[:, is_known], [tail, 100 - tail], axis=0).T
    return out
