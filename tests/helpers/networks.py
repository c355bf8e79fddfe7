"""Small networks and images for inference tests."""

import copy
from collections.abc import Callable

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from model.segmentor import SegOutput


class Toy(nn.Module):
    """A convolution that is asymmetric and depends on the window's borders."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, classes, 5, padding=2)

    def forward(self, x: Tensor) -> SegOutput:
        return SegOutput(self.conv(x) * 3, None)


class Low(Toy):
    """Like the real networks, with logits at 1/8 of the input size."""

    def forward(self, x: Tensor) -> SegOutput:
        return SegOutput(super().forward(x).logits[..., ::8, ::8], None)


def network64(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """Wrap the network in float64 for the plain loop."""
    double = copy.deepcopy(model).double().eval()
    return lambda windows: double(windows).logits


def smooth(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    noise = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
    return cv2.GaussianBlur(noise, (5, 5), 2)
