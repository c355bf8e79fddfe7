"""Window geometry of the test protocol: sizes, padding and positions, in plain integers."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Grid:
    """The windows on one scaled image. All lengths in pixels, in (height, width) order.

    `size` is the size of the scaled image, `pad` its (top, left) padding, `padded` the size
    including padding; `rows` and `columns` are the windows' first pixels in the padded image.
    """

    size: tuple[int, int]
    pad: tuple[int, int]
    padded: tuple[int, int]
    window: tuple[int, int]
    rows: tuple[int, ...]
    columns: tuple[int, ...]

    def pad_image(self, image: Tensor) -> Tensor:
        """Pad a normalised image (3, *size) to (3, *padded) with 0, the mean colour."""
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
    """Return the grid for an image scaled to `long_side`: windows of `crop`, stride 2/3 of it.

    With `whole` there is one window: the scaled image, each side padded to `whole(side)`.
    """
    size = scaled_size(height, width, long_side)
    if whole:
        crop = whole(size[0]), whole(size[1])
    top, left, bottom, right = padding(*size, crop)
    padded = size[0] + top + bottom, size[1] + left + right
    rows, columns = (tuple(window_starts(p, c)) for p, c in zip(padded, crop, strict=True))
    return Grid(size, (top, left), padded, crop, rows, columns)


def next_8k1(side: int) -> int:
    """Return the smallest 8k+1 >= `side`, k >= 1: the default rule for input sides."""
    return max(9, math.ceil((side - 1) / 8) * 8 + 1)


def scaled_size(height: int, width: int, long_side: int) -> tuple[int, int]:
    """Scale (height, width) to this long side, keeping proportions; sides are at least 1."""
    long_side = max(1, long_side)
    if height > width:
        return long_side, max(1, round(long_side / height * width))
    return max(1, round(long_side / width * height)), long_side


def padding(height: int, width: int, crop: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return the centred padding (top, left, bottom, right) up to at least the crop size."""
    down, across = max(0, crop[0] - height), max(0, crop[1] - width)
    return down // 2, across // 2, down - down // 2, across - across // 2


def window_starts(side: int, crop: int) -> list[int]:
    """Return window positions along `side` >= crop: stride 2/3 of crop, the last at the end."""
    stride = math.ceil(crop * 2 / 3)
    count = math.ceil((side - crop) / stride) + 1
    return [min(i * stride, side - crop) for i in range(count)]


def coverage(side: int, *, window: int, starts: Sequence[int], pad: int) -> list[int]:
    """Count the windows that cover each of the `side` pixels after the first `pad`."""
    return [sum(start <= i + pad < start + window for start in starts) for i in range(side)]


def resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize bilinearly, half-pixel centres, no antialiasing: (C, h, w) -> (C, *size)."""
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    return F.interpolate(x[None], size, mode="bilinear", align_corners=False)[0]
