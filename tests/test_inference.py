"""The sliding window against a plain float64 loop, one window at a time."""

import math

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.segmentor import SegOutput
from util.inference import SlidingPredictor, window_starts
from util.transform import MEAN, STD


class Toy(nn.Module):
    """A convolution that sees its window's borders, and is not symmetric."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, classes, 5, padding=2)

    def forward(self, x: Tensor) -> SegOutput:
        return SegOutput(self.conv(x) * 3, None)


def resize64(x: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear, half-pixel centres, written out: (h, w, C) float64 -> (height, width, C)."""
    ys = np.clip((np.arange(height) + 0.5) * x.shape[0] / height - 0.5, 0, x.shape[0] - 1)
    xs = np.clip((np.arange(width) + 0.5) * x.shape[1] / width - 0.5, 0, x.shape[1] - 1)
    y0, x0 = np.floor(ys).astype(int), np.floor(xs).astype(int)
    y1, x1 = np.minimum(y0 + 1, x.shape[0] - 1), np.minimum(x0 + 1, x.shape[1] - 1)
    fy, fx = (ys - y0)[:, None, None], (xs - x0)[None, :, None]
    top = x[y0][:, x0] * (1 - fx) + x[y0][:, x1] * fx
    bottom = x[y1][:, x0] * (1 - fx) + x[y1][:, x1] * fx
    return top * (1 - fy) + bottom * fy


def plain_loop(
    model: nn.Module, image: np.ndarray, classes: int, crop: tuple, base: int, scales: list
) -> np.ndarray:
    """The test protocol as it is told, in float64: (H, W, classes)."""
    model = model.double().eval()
    height, width = image.shape[:2]
    total = np.zeros((height, width, classes))
    for scale in scales:
        long_side = round(scale * base)
        h = w = long_side
        if height > width:
            w = round(long_side / height * width)
        else:
            h = round(long_side / width * height)
        x = (resize64(image.astype(np.float64), h, w) - MEAN) / STD
        pad_h, pad_w = max(crop[0] - h, 0), max(crop[1] - w, 0)
        before = pad_h // 2, pad_w // 2
        x = np.pad(x, ((before[0], pad_h - before[0]), (before[1], pad_w - before[1]), (0, 0)))
        scores, counts = np.zeros((*x.shape[:2], classes)), np.zeros((*x.shape[:2], 1))
        for y0 in starts(x.shape[0], crop[0]):
            for x0 in starts(x.shape[1], crop[1]):
                place = np.s_[y0 : y0 + crop[0], x0 : x0 + crop[1]]
                window = torch.from_numpy(x[place].transpose(2, 0, 1))[None]
                with torch.no_grad():
                    a = F.softmax(model(window).logits, 1)
                    b = F.softmax(model(window.flip(3)).logits, 1).flip(3)
                scores[place] += ((a + b) / 2)[0].permute(1, 2, 0).numpy()
                counts[place] += 1
        scores = (scores / counts)[before[0] : before[0] + h, before[1] : before[1] + w]
        total += resize64(scores, height, width)
    model.float()
    return total / len(scales)


def starts(side: int, crop: int) -> list[int]:
    stride, found, position = math.ceil(2 / 3 * crop), [], 0
    while position + crop < side:
        found.append(position)
        position += stride
    return [*found, side - crop]


CASES = [
    # classes, picture, crop, base_size, scales
    (5, (40, 64), (33, 33), 64, [1.0]),
    (5, (64, 40), (33, 41), 96, [0.5, 1.0, 1.75]),
    (150, (37, 51), (41, 41), 51, [0.5, 1.5]),
    (3, (10, 90), (33, 33), 45, [1.0]),  # smaller than the crop one way, larger the other
    (3, (12, 9), (33, 33), 12, [1.0, 2.0]),  # smaller than the crop at every scale
    (3, (100, 100), (17, 25), 150, [1.0]),
    (300, (30, 30), (33, 33), 30, [1.0]),
]


@pytest.mark.parametrize(("classes", "size", "crop", "base", "scales"), CASES)
def test_equals_the_plain_loop(
    rng: np.random.Generator, classes: int, size: tuple, crop: tuple, base: int, scales: list
) -> None:
    image = cv2.GaussianBlur(rng.integers(0, 256, (*size, 3)).astype(np.uint8), (5, 5), 2)
    model = Toy(classes)
    wanted = plain_loop(model, image, classes, crop, base, scales)
    predictor = SlidingPredictor(model, classes=classes, crop=crop, base_size=base, scales=scales)
    found = predictor.probabilities(image).permute(1, 2, 0).numpy()
    assert np.abs(found - wanted).max() < 1e-5
    pred = predictor.predict(image)
    assert pred.shape == size and (pred == wanted.argmax(2)).mean() > 0.999
    assert pred.max() < classes


@pytest.mark.parametrize("crop", [9, 33, 473])
def test_windows_cover_every_pixel(crop: int) -> None:
    for side in range(crop, 4 * crop, max(1, crop // 7)):
        assert window_starts(side, crop) == starts(side, crop)


def test_a_network_of_low_zoom_is_upsampled_to_its_window(rng: np.random.Generator) -> None:
    class Low(Toy):
        def forward(self, x: Tensor) -> SegOutput:
            return SegOutput(super().forward(x).logits[..., ::8, ::8], None)

    image = rng.integers(0, 256, (33, 33, 3)).astype(np.uint8)
    predictor = SlidingPredictor(Low(4), classes=4, crop=(33, 33), base_size=33)
    assert predictor.probabilities(image).shape == (4, 33, 33)


def test_the_batch_of_windows_does_not_change_the_result(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = rng.integers(0, 256, (90, 90, 3)).astype(np.uint8)
    predictor = SlidingPredictor(Toy(4), classes=4, crop=(33, 33), base_size=90)
    many = predictor.probabilities(image)
    monkeypatch.setattr("util.inference.WINDOW_PIXELS", 1)
    assert (predictor.probabilities(image) - many).abs().max() < 1e-6
