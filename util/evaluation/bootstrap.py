"""How far scores depend on the choice of images: the bootstrap over images (Efron, 1979)."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

DRAWS = 1000  # each end of a 95 % interval then rests on 25 draws
SEED = 0
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Areas:
    """Pixels by image and class, (N, C) int64 each; target: all pixels of that label."""

    intersection: np.ndarray
    union: np.ndarray
    target: np.ndarray

    @classmethod
    def stack(cls, images: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> "Areas":
        """From the (intersection, union, target), each (C,), of every image."""
        return cls(*(np.stack(rows) for rows in zip(*images, strict=True)))

    def image_miou(self) -> np.ndarray:
        """(N,): an image's mean IoU over the classes of its label or prediction, NaN if none."""
        return _mean_of_present(*_iou(self.intersection, self.union))


@dataclass(frozen=True)
class Intervals:
    """Ends (low, high) of 95 % intervals of the mean IoU, (2,), and of each class's, (C, 2).

    NaN for a class that the set does not hold.
    """

    miou: np.ndarray
    iou_class: np.ndarray


def draw_counts(images: int, *, draws: int = DRAWS, seed: int = SEED) -> np.ndarray:
    """(draws, N) float64: how often each of N images is in a sample of N with replacement."""
    rng = np.random.default_rng(seed)
    counts = np.empty((draws, images))
    for row in counts:
        row[:] = np.bincount(rng.integers(0, images, images), minlength=images)
    return counts


def intervals(areas: Areas, counts: np.ndarray) -> Intervals:
    """Of one result; `counts` (draws, N) from `draw_counts`.

    As in the headline, a class that the set does not hold counts 0. One that only a draw happens
    to leave out is left out of that draw's mean: its IoU there is unknown, not 0.
    """
    iou, is_present = _resample(areas, counts)
    held = is_present.any(axis=0).mean()
    mean = _mean_of_present(iou, is_present) * held
    return Intervals(
        miou=_ends(mean[:, None])[0], iou_class=_ends(np.where(is_present, iou, np.nan))
    )


def difference_intervals(first: Areas, second: Areas, counts: np.ndarray) -> Intervals:
    """Of `second` minus `first`, paired: both get the same draws of the same images, so that a
    image's difficulty, which both share, cancels."""
    (iou_1, is_present_1), (iou_2, is_present_2) = (_resample(a, counts) for a in (first, second))
    difference, is_present = iou_2 - iou_1, is_present_1 | is_present_2
    held = is_present.any(axis=0).mean()
    mean = _mean_of_present(difference, is_present) * held
    return Intervals(
        miou=_ends(mean[:, None])[0], iou_class=_ends(np.where(is_present, difference, np.nan))
    )


def _resample(areas: Areas, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    # Sums of areas as a matrix product: float64 holds whole numbers up to 2**53 pixels exactly.
    return _iou(counts @ areas.intersection, counts @ areas.union)


def _iou(intersection: np.ndarray, union: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """IoU, 0 where a class is absent, and whether it is present."""
    return intersection / np.maximum(union, 1), union > 0


def _mean_of_present(values: np.ndarray, is_present: np.ndarray) -> np.ndarray:
    """(M, C) -> (M,): the mean over the present classes, NaN where there is none."""
    number = is_present.sum(axis=1)
    sums = np.where(is_present, values, 0).sum(axis=1)
    return np.where(number > 0, sums / np.maximum(number, 1), np.nan)


def _ends(values: np.ndarray) -> np.ndarray:
    """(draws, K) -> (K, 2) percentiles of the draws that are not NaN; NaN where all are."""
    out = np.full((values.shape[1], 2), np.nan)
    is_known = ~np.isnan(values).all(axis=0)
    tail = 50 * (1 - CONFIDENCE)
    if is_known.any():
        out[is_known] = np.nanpercentile(values[:, is_known], [tail, 100 - tail], axis=0).T
    return out
