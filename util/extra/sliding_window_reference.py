"""Reference implementation of the test protocol: one window at a time, in NumPy, simple and slow.

Tests compare util/inference with it; tool/benchmark.py measures against it. They share no code.
"""

import math
from collections.abc import Callable, Sequence

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from util.data.transform import MEAN, STD


def enlarged_logits(network: nn.Module, device: torch.device) -> Callable[[Tensor], Tensor]:
    """Return the function windows (N, 3, h, w) -> logits (N, classes, h, w) of a network."""

    def logits(windows: Tensor) -> Tensor:
        found = network(windows.to(device, torch.float32)).logits
        return F.interpolate(found, windows.shape[-2:], mode="bilinear", align_corners=True)

    return logits


@torch.inference_mode()
def plain_loop(
    network: Callable[[Tensor], Tensor],
    image: np.ndarray,
    *,
    classes: int,
    crop: tuple[int, int],
    base_size: int,
    scales: Sequence[float],
    whole: Callable[[int], int] | None = None,
) -> np.ndarray:
    """Return the probabilities (H, W, classes), float64, of an RGB image (H, W, 3), uint8.

    `network` maps two normalised windows (2, 3, h, w), float64, to logits (2, classes, h, w).
    With `whole`, each scaled image is a single window whose sides are padded to `whole(side)`.
    """
    height, width = image.shape[:2]
    total = np.zeros((height, width, classes))
    for scale in scales:
        long_side = max(1, round(scale * base_size))
        if height > width:
            h, w = long_side, max(1, round(long_side / height * width))
        else:
            h, w = max(1, round(long_side / width * height)), long_side
        scaled = cv2.resize(image.astype(np.float64), (w, h), interpolation=cv2.INTER_LINEAR)
        scaled = (scaled - MEAN) / STD
        window = (whole(h), whole(w)) if whole else crop
        more_h, more_w = max(window[0] - h, 0), max(window[1] - w, 0)
        top, left = more_h // 2, more_w // 2
        padded = np.pad(scaled, ((top, more_h - top), (left, more_w - left), (0, 0)))
        probs = average_windows(network, padded, classes, window)[top : top + h, left : left + w]
        # Class by class: OpenCV cannot resize arrays of more than 128 channels.
        for i in range(classes):
            one = np.ascontiguousarray(probs[..., i])
            total[..., i] += cv2.resize(one, (width, height), interpolation=cv2.INTER_LINEAR)
    return total / len(scales)


def average_windows(
    network: Callable[[Tensor], Tensor], image: np.ndarray, classes: int, window: tuple[int, int]
) -> np.ndarray:
    """Return probabilities (h, w, classes) of a normalised image (h, w, 3), averaging overlaps."""
    scores = np.zeros((*image.shape[:2], classes))
    counts = np.zeros((*image.shape[:2], 1))
    for y in starts(image.shape[0], window[0]):
        for x in starts(image.shape[1], window[1]):
            place = np.s_[y : y + window[0], x : x + window[1]]
            one = torch.from_numpy(image[place].transpose(2, 0, 1).copy())
            probs = network(torch.stack([one, one.flip(2)])).softmax(dim=1)
            mean = (probs[0] + probs[1].flip(2)) / 2
            scores[place] += mean.cpu().numpy().astype(np.float64).transpose(1, 2, 0)
            counts[place] += 1
    return scores / counts


def starts(side: int, crop: int) -> list[int]:
    """Return window starts: two thirds of the crop apart, the last aligned with the border."""
    stride, found, position = math.ceil(2 / 3 * crop), [], 0
    while position + crop < side:
        found.append(position)
        position += stride
    return [*found, side - crop]


def side_8k1(side: int) -> int:
    """Return the smallest 8k+1 >= `side` with k >= 1."""
    return next(n for n in range(9, side + 17, 8) if n >= side)
