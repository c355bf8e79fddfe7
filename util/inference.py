"""The one sliding window: a picture of any size -> class probabilities, at several scales.

The protocol is that of the results tables: each window also mirrored, softmax, mean over the two,
overlaps averaged by count, mean over scales.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from util.precision import autocast
from util.transform import MEAN, STD

WINDOW_PIXELS = 4 * 473 * 473  # pixels of all windows of one forward pass


class SlidingPredictor:
    """Predicts pictures with a network that maps (N, 3, h, w) to an output with `.logits`.

    Args:
        model: the network; it is moved to `device` and put into eval mode.
        classes: number of channels of its logits.
        crop: (height, width) of a window, both 8k+1.
        base_size: long side of the picture, in pixels, at scale 1.
        scales: factors on base_size.
        device: where to compute.
        amp: off, bf16 or fp16 inside the network; everything around it stays float32.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        classes: int,
        crop: tuple[int, int],
        base_size: int,
        scales: Sequence[float] = (1.0,),
        device: str | torch.device = "cpu",
        amp: str = "off",
    ) -> None:
        self.device = torch.device(device)
        # Convolutions are faster with channels last, on a CPU and in mixed precision on a GPU.
        self.model = model.to(self.device, memory_format=torch.channels_last).eval()
        self.amp = amp
        self.classes = classes
        self.crop = crop
        self.base_size = base_size
        self.scales = tuple(scales)
        self._mean = torch.tensor(MEAN, device=self.device).view(3, 1, 1)
        self._std = torch.tensor(STD, device=self.device).view(3, 1, 1)

    @torch.inference_mode()
    def probabilities(self, image: np.ndarray) -> Tensor:
        """(H, W, 3) uint8 RGB -> (classes, H, W) float32 on the device; they sum to 1."""
        height, width = image.shape[:2]
        pixels = torch.tensor(image, device=self.device)
        pixels = pixels.permute(2, 0, 1).float()
        total = torch.zeros(self.classes, height, width, device=self.device)
        for scale in self.scales:
            size = scaled_size(height, width, round(scale * self.base_size))
            resized = (resize(pixels, size) - self._mean) / self._std
            total += resize(self._one_scale(resized), (height, width))
        return total / len(self.scales)

    def predict(self, image: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 RGB -> (H, W) class ids: uint8, or int32 for more than 256 classes."""
        label = self.probabilities(image).argmax(dim=0)
        return label.to(torch.uint8 if self.classes <= 256 else torch.int32).cpu().numpy()

    def window_at(self, image: np.ndarray, x: int, y: int) -> tuple[Tensor, int, int, tuple]:
        """The window of the first scale that has a pixel of the picture nearest its middle.

        Returns the window (1, 3, h, w), the pixel's row and column in it, and the (top, left,
        height, width) of the window in pixels of the picture (beyond it where it is padded).
        """
        height, width = image.shape[:2]
        size = scaled_size(height, width, round(self.scales[0] * self.base_size))
        pixels = torch.tensor(image, device=self.device).permute(2, 0, 1).float()
        resized = (resize(pixels, size) - self._mean) / self._std
        top, left, bottom, right = padding(*size, self.crop)
        resized = F.pad(resized, (left, right, top, bottom))
        factors = size[0] / height, size[1] / width
        row = min(round(y * factors[0]), size[0] - 1) + top
        column = min(round(x * factors[1]), size[1] - 1) + left
        y0, x0 = (
            min(max(0, at - crop // 2), side - crop)
            for at, crop, side in zip((row, column), self.crop, resized.shape[1:], strict=True)
        )
        window = resized[None, :, y0 : y0 + self.crop[0], x0 : x0 + self.crop[1]]
        box = (
            round((y0 - top) / factors[0]),
            round((x0 - left) / factors[1]),
            round(self.crop[0] / factors[0]),
            round(self.crop[1] / factors[1]),
        )
        return window, row - y0, column - x0, box

    def _one_scale(self, image: Tensor) -> Tensor:
        """Normalised (3, h, w) -> probabilities (classes, h, w)."""
        height, width = image.shape[-2:]
        top, left, bottom, right = padding(height, width, self.crop)
        image = F.pad(image, (left, right, top, bottom))  # normalised, the mean colour is 0
        total = image.new_zeros(self.classes, *image.shape[-2:])
        count = image.new_zeros(image.shape[-2:])
        for corners in self._batches(*image.shape[-2:]):
            windows = [(slice(y, y + self.crop[0]), slice(x, x + self.crop[1])) for y, x in corners]
            inputs = torch.stack([image[:, rows, columns] for rows, columns in windows])
            for (rows, columns), probs in zip(windows, self._forward(inputs), strict=True):
                total[:, rows, columns] += probs
                count[rows, columns] += 1
        return (total / count)[:, top : top + height, left : left + width]

    def _forward(self, windows: Tensor) -> Tensor:
        """(N, 3, h, w) -> (N, classes, h, w): mean softmax of the windows and their mirrors."""
        inputs = torch.cat([windows, windows.flip(-1)])
        with autocast(self.device, self.amp):
            logits = self.model(inputs.contiguous(memory_format=torch.channels_last)).logits
        logits = logits.float()
        if logits.shape[-2:] != windows.shape[-2:]:  # trained with zoom_factor below 8
            logits = F.interpolate(logits, windows.shape[-2:], mode="bilinear", align_corners=True)
        plain, mirrored = logits.softmax(dim=1).chunk(2)
        return (plain + mirrored.flip(-1)) / 2

    def _batches(self, height: int, width: int) -> Iterator[list[tuple[int, int]]]:
        """Corners (y, x) of all windows, as many at a time as one forward pass takes."""
        rows = window_starts(height, self.crop[0])
        columns = window_starts(width, self.crop[1])
        corners = [(y, x) for y in rows for x in columns]
        # Each window is run twice, as it is and mirrored.
        size = max(1, WINDOW_PIXELS // (2 * self.crop[0] * self.crop[1]))
        for start in range(0, len(corners), size):
            yield corners[start : start + size]


def scaled_size(height: int, width: int, long_side: int) -> tuple[int, int]:
    """Size with this long side and the same proportions; no side falls below one pixel."""
    long_side = max(1, long_side)
    if height > width:
        return long_side, max(1, round(long_side / height * width))
    return max(1, round(long_side / width * height)), long_side


def padding(height: int, width: int, crop: tuple[int, int]) -> tuple[int, int, int, int]:
    """(top, left, bottom, right) that bring a picture to at least the crop, half of it before."""
    down, across = max(0, crop[0] - height), max(0, crop[1] - width)
    return down // 2, across // 2, down - down // 2, across - across // 2


def window_starts(side: int, crop: int) -> list[int]:
    """First pixels of windows of `crop` along `side` >= crop: two thirds apart, last at the end."""
    stride = math.ceil(crop * 2 / 3)
    count = math.ceil((side - crop) / stride) + 1
    return [min(i * stride, side - crop) for i in range(count)]


def resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear with half-pixel centres and no antialiasing: (C, h, w) -> (C, *size)."""
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    return F.interpolate(x[None], size, mode="bilinear", align_corners=False)[0]
