"""Scores against a pixel-by-pixel count."""

import numpy as np
import pytest
import torch

from util.metric import ConfusionMatrix


def brute_force(pred: np.ndarray, label: np.ndarray, classes: int, ignore: int) -> tuple:
    iou, acc = [], []
    hits = labelled = 0
    for c in range(classes):
        inter = union = target = 0
        for p, t in zip(pred.ravel().tolist(), label.ravel().tolist(), strict=True):
            if t == ignore:
                continue
            inter += p == c and t == c
            union += p == c or t == c
            target += t == c
        iou.append(inter / (union + 1e-10))
        acc.append(inter / (target + 1e-10))
        hits, labelled = hits + inter, labelled + target
    return np.mean(iou), np.mean(acc), hits / (labelled + 1e-10), iou, acc


@pytest.mark.parametrize("classes", [3, 7, 300])
def test_against_brute_force(rng: np.random.Generator, classes: int) -> None:
    ignore = 255 if classes < 255 else 65535
    pred = rng.integers(0, classes, (2, 11, 13)).astype(np.uint16)
    label = np.where(rng.random(pred.shape) < 0.5, pred, rng.integers(0, classes, pred.shape))
    label[rng.random(pred.shape) < 0.2] = ignore
    matrix = ConfusionMatrix(classes, ignore)
    for p, t in zip(pred, label, strict=True):
        matrix.update(p, t)
    scores = matrix.scores()
    miou, macc, aacc, iou, acc = brute_force(pred, label, classes, ignore)
    assert scores.miou == pytest.approx(miou, abs=1e-12)
    assert scores.macc == pytest.approx(macc, abs=1e-12)
    assert scores.aacc == pytest.approx(aacc, abs=1e-12)
    assert scores.iou_class == pytest.approx(iou, abs=1e-12)
    assert scores.acc_class == pytest.approx(acc, abs=1e-12)


def test_absent_class_counts_zero_and_is_reported() -> None:
    matrix = ConfusionMatrix(4)
    matrix.update(np.array([[0, 1]]), np.array([[0, 1]]))
    scores = matrix.scores()
    assert scores.absent == [2, 3]
    assert scores.miou == pytest.approx(0.5)
    assert scores.miou_present == pytest.approx(1.0)


def test_ignored_pixels_do_not_count_even_with_odd_predictions() -> None:
    matrix = ConfusionMatrix(2, 255)
    matrix.update(torch.tensor([[0, 1, 1]]), torch.tensor([[255, 255, 1]]))
    assert matrix.matrix.tolist() == [[0, 0], [0, 1]]


def test_nothing_counted_gives_zeros() -> None:
    scores = ConfusionMatrix(2).scores()
    assert (scores.miou, scores.aacc, scores.miou_present) == (0.0, 0.0, 0.0)


def test_the_two_ways_of_counting_agree(rng: np.random.Generator) -> None:
    pred, label = (torch.from_numpy(rng.integers(0, 5, (9, 9))) for _ in range(2))
    matrix = ConfusionMatrix(5)
    matrix.update(pred, label)
    cells = (label * 5 + pred).flatten()
    scattered = torch.zeros(26, dtype=torch.int64).scatter_add_(0, cells, torch.ones_like(cells))
    assert torch.equal(scattered[:-1].view(5, 5), matrix.matrix)
