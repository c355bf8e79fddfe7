"""Scores against a pixel-by-pixel count."""

import numpy as np
import pytest
import torch

from util.metric import STRIP, ConfusionMatrix, ImageCounts, count_pixels, scatter_pixels


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
    """The GPU implementation also runs on the CPU."""
    pred, label = (torch.from_numpy(rng.integers(0, 5, (9, 9))) for _ in range(2))
    label[2:5] = 255
    pred[3] = 77  # ignored, so it may be anything
    found = scatter_pixels(pred, label, classes=5, ignore_label=255)
    wanted = count_pixels(pred.numpy(), label.numpy(), classes=5, ignore_label=255)
    assert found.tolist() == wanted.tolist() and found.sum() == 54


@pytest.mark.gpu
def test_a_gpu_counts_the_same(rng: np.random.Generator) -> None:
    pred = rng.integers(0, 300, (3, 50, 60)).astype(np.uint16)
    label = np.where(rng.random(pred.shape) < 0.1, 65535, rng.integers(0, 300, pred.shape))
    matrices = [ConfusionMatrix(300, 65535, device=device) for device in ("cpu", "cuda")]
    for matrix in matrices:
        matrix.update(pred, label)
        matrix.update(torch.from_numpy(pred.astype(np.int32)), torch.from_numpy(label))
    assert matrices[0].matrix.tolist() == matrices[1].matrix.tolist()


def test_strips_join_without_a_seam(rng: np.random.Generator) -> None:
    pred, label = (rng.integers(0, 3, (3, STRIP // 2)).astype(np.uint8) for _ in range(2))
    label[label == 2] = 255
    found = count_pixels(pred, label, classes=3, ignore_label=255)
    assert found.tolist() == [
        [int(((label == row) & (pred == column)).sum()) for column in range(3)] for row in range(3)
    ]


@pytest.mark.parametrize(("classes", "ignore"), [(2, 255), (150, 255), (256, 300), (19, 0)])
def test_bytes_are_counted_like_wider_ids(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, classes: int, ignore: int
) -> None:
    monkeypatch.setattr("util.metric.HISTOGRAM_STRIP", 1000)
    pred = rng.integers(0, classes, (70, 80)).astype(np.uint8)
    label = np.where(rng.random(pred.shape) < 0.5, pred, pred[::-1])
    if ignore < 256:
        label[rng.random(pred.shape) < 0.2] = ignore
        pred[0], label[0] = 255, ignore
    found, wanted = (
        count_pixels(pred.astype(kind), label.astype(kind), classes=classes, ignore_label=ignore)
        for kind in (np.uint8, np.int64)
    )
    np.testing.assert_array_equal(found, wanted)
    assert found.sum() == (label != ignore).sum()


def test_one_class_fills_an_image_of_over_16_million_pixels() -> None:
    pixels = np.ones((1, 2**24 + 3), np.uint8)  # float32 cannot hold this number
    assert count_pixels(pixels, pixels, classes=2, ignore_label=255)[1, 1] == 2**24 + 3


def test_an_id_beyond_the_classes_is_an_error() -> None:
    for pred, label in (([3], [0]), ([0], [3])):
        with pytest.raises(AssertionError, match=r"1 pixels have ids outside 0\.\.2"):
            count_pixels(np.uint8(pred), np.uint8(label), classes=3, ignore_label=255)


def test_images_count_the_same_in_any_order_and_in_parts(rng: np.random.Generator) -> None:
    images = {i: rng.integers(0, 3, (2, 4, 5)) for i in range(8)}
    images[5] = images[3]  # a tie: the first one is named

    def counted(order: list[int]) -> ImageCounts:
        counts = ImageCounts(3)
        for i in order:
            counts.add(count_pixels(*images[i], classes=3, ignore_label=255), image=i)
        return counts

    whole = counted(list(images))
    for parts in (
        [[7, 5, 1, 0, 3, 2, 6, 4]],
        [[1, 3, 5, 7], [0, 2, 4, 6]],
        [[5], [0, 7], [6, 4, 3, 2, 1]],
    ):
        merged = ImageCounts(3)
        for part in parts:
            merged.merge(counted(part))
        assert torch.equal(merged.total.matrix, whole.total.matrix)
        np.testing.assert_array_equal(merged.image_of, whole.image_of)
        np.testing.assert_array_equal(merged.areas, whole.areas)
