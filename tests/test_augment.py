"""The fused augmentation against the stepwise one, with the same random numbers."""

import cv2
import numpy as np
import pytest
import torch

from tests.conftest import ROOT
from util.config import load_config
from util.data.augment import FILL, FusedAugmentation
from util.data.image import read_image
from util.data.transform import MEAN, denormalise, train_transform
from util.extra.golden import smooth_image

SCALE, ROTATE = (0.5, 2.0), (-10.0, 10.0)


def both(crop: tuple[int, int], **changes: object) -> tuple:
    """The steps, and the same at once."""
    settings = {"scale": SCALE, "rotate": ROTATE, "ignore_label": 255, **changes}
    steps = train_transform(crop, **settings)
    return steps, FusedAugmentation(steps, largest_id=settings["ignore_label"])


def scene(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """A drawn street with a label of large and of small regions, ids 0..18."""
    image = read_image(ROOT / "figure/demo/toy_street.jpg")
    image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    rng = np.random.default_rng(5)
    coarse = rng.integers(0, 19, (height // 24 + 1, width // 24 + 1)).astype(np.uint8)
    return image, cv2.resize(coarse, (width, height), interpolation=cv2.INTER_NEAREST)


def edges(label: np.ndarray) -> np.ndarray:
    """Pixels whose neighbours have other ids."""
    around = np.ones((5, 5))
    return cv2.dilate(label, around) != cv2.erode(label, around)


@pytest.mark.parametrize("size", [(240, 320), (97, 301), (301, 97)])
def test_equal_numbers_give_the_same_geometry(size: tuple[int, int]) -> None:
    steps, fused = both((233, 185))
    image, label = scene(*size)
    for seed in range(24):
        want, want_ids = steps(image, label, np.random.default_rng(seed))
        found, ids = fused(image, label, np.random.default_rng(seed))
        assert found.dtype == ids.dtype == torch.uint8
        assert found.shape == want.shape and ids.shape == want_ids.shape
        difference = np.abs(denormalise(found).astype(float) - denormalise(want)).mean()
        assert difference <= 2, f"seed {seed}"
        want_ids = want_ids.numpy().astype(np.uint8)
        inner = ~edges(want_ids)
        assert (ids.numpy() == want_ids)[inner].mean() >= 0.99, f"seed {seed}"


@pytest.mark.parametrize("is_scaled", [False, True])
def test_without_rotation_labels_are_equal_and_images_to_a_rounding(is_scaled: bool) -> None:
    steps, fused = both((65, 89), rotate=(0.0, 0.0), scale=SCALE if is_scaled else (1.0, 1.0))
    image, label = smooth_image("augment", 70, 90), scene(70, 90)[1]
    for seed in range(20):
        want, want_ids = steps(image, label, np.random.default_rng(seed))
        found, ids = fused(image, label, np.random.default_rng(seed))
        rng = np.random.default_rng(seed)
        drawn = [step.draw(rng) for step in steps.steps]
        if drawn[1] is None:  # otherwise rotated by 0 degrees
            assert (ids.numpy() == want_ids.numpy()).all(), f"seed {seed}"
        difference = np.abs(denormalise(found).astype(int) - denormalise(want))
        assert difference.max() <= (3 if drawn[1] is None else 20) and difference.mean() < 0.5


def test_around_a_small_image_are_mean_and_ignore_label() -> None:
    _, fused = both((65, 65), scale=(0.5, 0.5))
    image, label = np.full((20, 40, 3), 7, np.uint8), np.full((20, 40), 3, np.uint8)
    for seed in range(20):
        found, ids = fused(image, label, np.random.default_rng(seed))
        outside = ids == 255
        assert outside[:20].all() and outside[-20:].all() and (ids == 3).sum() >= 0.7 * 200
        colors = found[:, :20].reshape(3, -1).unique(dim=1)
        assert colors.T.tolist() == [list(FILL)] and np.abs(np.subtract(FILL, MEAN)).max() <= 0.5


@pytest.mark.parametrize(("ignore_label", "largest", "kind"), [(65535, 300, torch.int32)])
def test_ids_above_255(ignore_label: int, largest: int, kind: torch.dtype) -> None:
    steps, fused = both((65, 65), ignore_label=ignore_label)
    image, label = scene(60, 80)
    label = label.astype(np.int32) + largest - 18
    seen = set()
    for seed in range(12):
        want, found = (t(image, label, np.random.default_rng(seed))[1] for t in (steps, fused))
        assert found.dtype == kind and (want == found).float().mean() > 0.9
        seen |= set(found.unique().tolist())
    assert max(seen - {ignore_label}) == largest and ignore_label in seen


def test_images_of_few_pixels_and_of_many() -> None:
    _, fused = both((33, 33))
    for height, width in ((1, 1), (1, 50), (40000, 2), (2, 40000)):
        image = np.full((height, width, 3), 9, np.uint8)
        label = np.full((height, width), 4, np.uint8)
        for seed in range(6):
            found, ids = fused(image, label, np.random.default_rng(seed))
            assert found.shape == (3, 33, 33) and set(ids.unique().tolist()) <= {4, 255}


def test_class_frequencies_are_equal_over_2000_draws() -> None:
    steps, fused = both((41, 41))
    image, label = scene(48, 64)
    counts = np.zeros((2, 2, 256))  # two halves of the draws, whose difference estimates the noise
    for seed in range(2000):
        for i, transform in enumerate((steps, fused)):
            ids = transform(image, label, np.random.default_rng(seed))[1].numpy()
            counts[i, seed % 2] += np.bincount(ids.ravel(), minlength=256)
    noise = np.abs(counts[0, 0] - counts[0, 1]).sum() / counts[0].sum()
    assert np.abs(counts[0].sum(0) - counts[1].sum(0)).sum() / counts[0].sum() < noise


def test_the_key_chooses_and_the_loader_gives_uint8(tiny) -> None:
    from util.data.dataset import build_loader

    for augment, kind in (("stepwise", torch.float32), ("fused", torch.uint8)):
        cfg = load_config(tiny, ["augment", augment])
        image, label = next(iter(build_loader(cfg, is_training=True)))
        assert image.dtype == kind and image.shape == (2, 3, 33, 33)
        assert label.shape == (2, 33, 33)
    assert load_config(tiny).augment == "fused"
