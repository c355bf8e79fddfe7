"""Turns the network's small logits into probabilities, a few rows of the image at a time.

The logits of all windows at 1/8 of their size are small; maps of (classes, height, width) are not.
Large maps are therefore computed in strips of rows, on demand:

    label_strips       rows 0..n, n..2n, ... of the image, summed over scales; the caller's argmax
      ^
    ScaleRows.resized  the same rows for one scale, interpolated between rows of the scaled image
      ^
    ScaleRows.take     rows of the scaled image; strips overlap by up to one row, so the last rows
      ^                are cached (`_rows`)
    _add_window        adds each window that intersects these rows:
                         logits row k   ----x----x----x----      (h', 2, classes, w')
                         wanted row  ~  . . . . . . . . . .      lerp of rows k and k + 1
                         logits row k+1 ----x----x----x----      then softmax, mean of the two
                       columns are interpolated first, once per row of the logits

The layout is (rows, classes, width): contiguous rows make this fast on a CPU.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from util.inference.grid import Grid, coverage

# Floats per strip, and per block of logits within it. On a CPU blocks fit in the cache (with 150
# classes 2.5 times as fast as whole windows), and strips stay below 32 MiB, up to which malloc
# reuses memory instead of requesting fresh pages. A GPU needs large blocks.
STRIP_FLOATS = {"cpu": 6 * 2**20, "cuda": 64 * 2**20}
PIECE_FLOATS = {"cpu": 2**19, "cuda": 64 * 2**20}


class ScaleRows:
    """Probabilities of one scale times `weight`, computed in rows from top to bottom.

    Args:
        grid: the positions of the windows.
        logits: one (h', 2, classes, w') per window in row-major order: the window's logits and
            those of its mirror image, mirrored back; corners aligned with the window's.
        weight: factor on the result.
    """

    def __init__(self, grid: Grid, logits: Sequence[Tensor], *, weight: float) -> None:
        self.grid, self.logits = grid, logits
        device = logits[0].device
        counts = [
            coverage(side, window=window, starts=starts, pad=pad)
            for side, window, starts, pad in zip(
                grid.size, grid.window, (grid.rows, grid.columns), grid.pad, strict=True
            )
        ]
        half = weight / 2  # mean of a window and its mirror image
        self._row_weight = (half / torch.tensor(counts[0], device=device)).view(-1, 1, 1)
        self._column_weight = 1 / torch.tensor(counts[1], device=device)
        self._first = 0
        self._rows = logits[0].new_zeros(0, logits[0].shape[2], grid.size[1])

    def resized(self, first: int, last: int, size: tuple[int, int]) -> Tensor:
        """Return rows first..last of the map resized to `size` (half-pixel centres), (n, C, W)."""
        (height, width), (own_height, own_width) = size, self.grid.size
        if height == own_height:
            rows = self.take(first, last)
        else:
            factor = own_height / height
            at = [max(0.0, (i + 0.5) * factor - 0.5) for i in range(first, last)]
            upper = [min(int(y), own_height - 1) for y in at]
            lower = [min(y + 1, own_height - 1) for y in upper]
            band = self.take(upper[0], lower[-1] + 1)
            share = band.new_tensor([y - i for y, i in zip(at, upper, strict=True)])
            rows = torch.lerp(
                _select_rows(band, upper, upper[0]),
                _select_rows(band, lower, upper[0]),
                share.view(-1, 1, 1),
            )
        if width == own_width:
            return rows
        return stretch(rows, width, align_corners=False)

    def take(self, first: int, last: int) -> Tensor:
        """Return rows first..last at this scale: (n, classes, w). `first` must not decrease."""
        kept = self._rows[first - self._first :]
        rows = kept.new_zeros(last - first, *kept.shape[1:])
        rows[: len(kept)] = kept
        top, left = self.grid.pad
        for i, (y, x) in enumerate((y, x) for y in self.grid.rows for x in self.grid.columns):
            start, stop = max(first + len(kept), y - top), min(last, y - top + self.grid.window[0])
            begin, end = max(0, x - left), min(rows.shape[2], x - left + self.grid.window[1])
            if start < stop and begin < end:
                self._add_window(
                    rows[start - first : stop - first, :, begin:end],
                    self.logits[i],
                    rows=(start + top - y, stop + top - y),
                    columns=(begin + left - x, end + left - x),
                    weight=self._row_weight[start:stop] * self._column_weight[begin:end],
                )
        self._first, self._rows = first, rows
        return rows

    def _add_window(
        self,
        target: Tensor,
        logits: Tensor,
        *,
        rows: tuple[int, int],
        columns: tuple[int, int],
        weight: Tensor,
    ) -> None:
        """Add rows and columns of a window to target (n, classes, m); weight is (n, 1, m)."""
        side, steps = len(logits) - 1, self.grid.window[0] - 1
        # Each row of the window is a linear interpolation of two rows of the logits.
        places = [divmod(r * side, steps) for r in range(*rows)]
        above = [min(k, max(0, side - 1)) for k, _ in places]
        share = [k + rest / steps - a for (k, rest), a in zip(places, above, strict=True)]
        top = above[0]
        wide = logits[top : above[-1] + 2].flatten(1, 2)
        wide = stretch(wide, self.grid.window[1], align_corners=True)
        wide = wide[..., slice(*columns)].contiguous().unflatten(1, logits.shape[1:3])
        shares = wide.new_tensor(share).view(-1, 1, 1, 1)
        for piece in _row_blocks(above, wide.device, row_floats=wide[0].numel()):
            below = [min(k + 1, side) for k in above[piece]]
            x = torch.lerp(
                _select_rows(wide, above[piece], top), _select_rows(wide, below, top), shares[piece]
            )
            x -= x.amax(dim=2, keepdim=True)
            x.exp_()
            factor = weight[piece, None] / x.sum(dim=2, keepdim=True)
            for image in range(2):
                target[piece].addcmul_(x[:, image], factor[:, image])


def label_strips(
    scales: Sequence[ScaleRows], size: tuple[int, int]
) -> Iterator[tuple[int, Tensor]]:
    """Yield (first row, sum over scales (n, classes, W)) of an image of `size`, top to bottom."""
    height, width = size
    example = scales[0].logits[0]
    floats = STRIP_FLOATS["cpu" if example.device.type == "cpu" else "cuda"]
    step = max(1, floats // (example.shape[2] * width))
    for first in range(0, height, step):
        last = min(height, first + step)
        total: Any = sum(scale.resized(first, last, size) for scale in scales)
        yield first, total


def stretch(rows: Tensor, width: int, *, align_corners: bool) -> Tensor:
    """Interpolate the last dimension linearly: (n, C, w) -> (n, C, width).

    A matrix product on GPUs: PyTorch's interpolation took 60 % of the time of a test in bf16.
    """
    if rows.device.type == "cpu":
        return F.interpolate(rows, width, mode="linear", align_corners=align_corners)
    matrix = stretching_matrix(rows.shape[-1], width, align_corners, rows.dtype, rows.device)
    return rows @ matrix


@lru_cache(maxsize=64)
def stretching_matrix(
    small: int, large: int, align_corners: bool, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Return the interpolation matrix (small, large)."""
    each = torch.eye(small, dtype=torch.float64)[None]
    matrix = F.interpolate(each, large, mode="linear", align_corners=align_corners)[0]
    return matrix.to(device, dtype)


def _row_blocks(above: list[int], device: torch.device, *, row_floats: int) -> Iterator[slice]:
    """Yield blocks of rows to process together.

    On a CPU a block lies between two rows of the logits, which then need not be copied per row.
    """
    is_cpu = device.type == "cpu"
    most = max(1, PIECE_FLOATS["cpu" if is_cpu else "cuda"] // row_floats)
    start = 0
    while start < len(above):
        stop = min(len(above), start + most)
        if is_cpu:
            stop = min(stop, bisect_right(above, above[start]))
        yield slice(start, stop)
        start = stop


def _select_rows(rows: Tensor, index: list[int], first: int) -> Tensor:
    """Select rows `index` of a tensor whose first row is `first`, as a view if possible.

    If all indices are equal, returns a single row (1, ...), which broadcasts.
    """
    if index[0] == index[-1]:
        return rows[index[0] - first][None]
    if index == list(range(index[0], index[-1] + 1)):
        return rows[index[0] - first : index[-1] - first + 1]
    return rows.index_select(0, torch.tensor(index, device=rows.device) - first)
