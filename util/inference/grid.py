"""Where windows lie: sizes, padding and corners of the test protocol, in plain integers."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Grid:
    """The windows of one scale of an image. All lengths in pixels, (height, width) order.

    `size` is the scaled image's, `pad` what lies (above, left of) it, `padded` the size with
    padding all around; `rows` and `columns` are the first pixels of the windows in that.
    """

    size: tuple[int, int]
    pad: tuple[int, int]
    padded: tuple[int, int]
    window: tuple[int, int]
    rows: tuple[int, ...]
    columns: tuple[int, ...]

    def pad_image(self, image: Tensor) -> Tensor:
        """(3, *size) normalised -> (3, *padded), with the mean colour, which is 0."""
        top, left = self.pad
        bottom = self.padded[0] - self.size[0] - top
        right = self.padded[1] - self.size[1] - left
        return F.pad(image, (left, right, top, bottom))


def make_grid(
    height: int,
    width: int,
    *,
    long_side: int,
    crop: tuple[int, int],
    whole: Callable[[int], int] | None = None,
) -> Grid:
    """The grid of an image scaled to `long_side`: windows of `crop`, two thirds apart.

    With `whole` it is one window: the scaled image, each side padded to `whole(side)`.
    """
    size = scaled_size(height, width, long_side)
    if whole:
        crop = whole(size[0]), whole(size[1])
    top, left, bottom, right = padding(*size, crop)
    padded = size[0] + top + bottom, size[1] + left + right
    rows, columns = (tuple(window_starts(p, c)) for p, c in zip(padded, crop, strict=True))
    return Grid(size, (top, left), padded, crop, rows, columns)


def next_8k1(side: int) -> int:
    """The smallest 8k+1 of at least `side`, k >= 1: what a network takes that does not say."""
    return max(9, math.ceil((side - 1) / 8) * 8 + 1)


def scaled_size(height: int, width: int, long_side: int) -> tuple[int, int]:
    """Size with this long side and the same proportions; no side falls below one pixel."""
    long_side = max(1, long_side)
    if height > width:
        return long_side, max(1, round(long_side / height * width))
    return max(1, round(long_side / width * height)), long_side


def padding(height: int, width: int, crop: tuple[int, int]) -> tuple[int, int, int, int]:
    """(top, left, bottom, right) that bring an image to at least the crop, half of it before."""
    down, across = max(0, crop[0] - height), max(0, crop[1] - width)
    return down // 2, across // 2, down - down // 2, across - across // 2


def window_starts(side: int, crop: int) -> list[int]:
    """First pixels of windows of `crop` along `side` >= crop: two thirds apart, last at the end."""
    stride = math.ceil(crop * 2 / 3)
    count = math.ceil((side - crop) / stride) + 1
    return [min(i * stride, side - crop) for i in range(count)]


def coverage(side: int, *, window: int, starts: Sequence[int], pad: int) -> list[int]:
    """How many windows hold each of the `side` pixels after the first `pad`."""
    return [sum(start <= i + pad < start + window for start in starts) for i in range(side)]


def resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear with half-pixel centres and no antialiasing: (C, h, w) -> (C, *size)."""
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    return F.interpolate(x[None], size, mode="bilinear", align_corners=False)[0]
