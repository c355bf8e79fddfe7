"""Augmentation against a plain reference, and properties of each step."""

import cv2
import numpy as np
import pytest
import torch

from util.data.transform import (
    MEAN,
    STD,
    Crop,
    RandomRotate,
    RandomScale,
    denormalise,
    train_transform,
    val_transform,
)

CROP, SCALE, ROTATE = (41, 57), (0.5, 2.0), (-10.0, 10.0)


def oracle(
    image: np.ndarray, label: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Reference implementation of training augmentation, without classes."""
    scale = rng.uniform(*SCALE)
    angle = rng.uniform(*ROTATE)
    is_rotated, is_blurred, is_flipped = (rng.random() < 0.5 for _ in range(3))
    where = rng.random(), rng.random()

    image = image.astype(np.float32)
    size = (round(image.shape[1] * scale), round(image.shape[0] * scale))
    image = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
    label = cv2.resize(label, size, interpolation=cv2.INTER_NEAREST)
    if is_rotated:
        turn = cv2.getRotationMatrix2D((size[0] / 2, size[1] / 2), angle, 1)
        image = cv2.warpAffine(image, turn, size, flags=cv2.INTER_LINEAR, borderValue=MEAN)
        label = cv2.warpAffine(label, turn, size, flags=cv2.INTER_NEAREST, borderValue=255)
    if is_blurred:
        image = cv2.GaussianBlur(image, (5, 5), 0)
    if is_flipped:
        image, label = image[:, ::-1], label[:, ::-1]
    h, w = label.shape
    full_h, full_w = max(h, CROP[0]), max(w, CROP[1])
    padded = np.empty((full_h, full_w, 3), np.float32)
    padded[:] = MEAN
    padded_label = np.full((full_h, full_w), 255, np.uint8)
    top, left = (full_h - h) // 2, (full_w - w) // 2
    padded[top : top + h, left : left + w] = image
    padded_label[top : top + h, left : left + w] = label
    y = int(where[0] * (full_h - CROP[0] + 1))
    x = int(where[1] * (full_w - CROP[1] + 1))
    window = np.s_[y : y + CROP[0], x : x + CROP[1]]
    return (padded[window] - MEAN) / STD, padded_label[window]


@pytest.mark.parametrize("seed", range(12))
def test_training_preset_equals_the_oracle(seed: int) -> None:
    rng = np.random.default_rng(100 + seed)
    image = rng.integers(0, 256, (37, 61, 3)).astype(np.uint8)
    label = rng.integers(0, 5, (37, 61)).astype(np.uint8)
    transform = train_transform(CROP, scale=SCALE, rotate=ROTATE, ignore_label=255)
    found_image, found_label = transform(image, label, np.random.default_rng(seed))
    wanted_image, wanted_label = oracle(image, label, np.random.default_rng(seed))
    assert found_image.dtype == torch.float32 and found_label.dtype == torch.int64
    np.testing.assert_allclose(found_image.permute(1, 2, 0), wanted_image, atol=1e-4)
    np.testing.assert_array_equal(found_label, wanted_label)


def test_validation_is_the_centre_crop() -> None:
    image = np.arange(50 * 60 * 3, dtype=np.uint8).reshape(50, 60, 3)
    label = np.arange(50 * 60, dtype=np.int32).reshape(50, 60)
    found, ids = val_transform((41, 57), ignore_label=-1)(image, label, np.random.default_rng(0))
    np.testing.assert_array_equal(ids, label[4:45, 1:58])
    np.testing.assert_array_equal(denormalise(found), image[4:45, 1:58])


def test_padding_goes_half_before_and_is_mean_and_ignore() -> None:
    image = np.full((3, 4, 3), 9, np.uint8)
    label = np.zeros((3, 4), np.uint8)
    found, ids = val_transform((9, 9), ignore_label=255)(image, label, np.random.default_rng(0))
    assert (ids != 255).nonzero().aminmax(dim=0).min.tolist() == [3, 2]  # 6 -> 3 + 3, 5 -> 2 + 3
    assert found[:, ids == 255].abs().max() < 1e-6  # the mean, normalised, is 0


def test_crops_reach_both_borders() -> None:
    crop = Crop(3, 3, 255)
    windows = [crop.window((5, 5), (y, x)) for y in (0, 0.5, 0.999) for x in (0, 0.999)]
    assert {(0, 0), (1, 0), (2, 2)} <= {(rows.start, columns.start) for rows, columns in windows}


def test_ids_above_255_survive_every_step() -> None:
    label = np.full((20, 20), 60000, np.int32)
    image = np.zeros((20, 20, 3), np.float32)
    for step, drawn in ((RandomScale(0.5, 2), 1.7), (RandomRotate(-10, 10, 65535), 7.0)):
        image, label = step.apply(image, label, drawn)
    assert set(np.unique(label)) <= {60000, 65535} and (label == 60000).any()


def test_scaling_a_one_pixel_side_keeps_a_pixel() -> None:
    image, label = np.zeros((1, 9, 3), np.float32), np.zeros((1, 9), np.int32)
    assert RandomScale(0.1, 0.1).apply(image, label, 0.1)[1].shape == (1, 1)


def test_inputs_are_left_alone(rng: np.random.Generator) -> None:
    image = rng.integers(0, 256, (37, 61, 3)).astype(np.uint8)
    label = rng.integers(0, 5, (37, 61)).astype(np.uint8)
    before = image.copy(), label.copy()
    for seed in range(5):
        transform = train_transform(CROP, scale=SCALE, rotate=ROTATE, ignore_label=255)
        transform(image, label, np.random.default_rng(seed))
    np.testing.assert_array_equal(image, before[0])
    np.testing.assert_array_equal(label, before[1])
