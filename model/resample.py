"""Pooling, enlargement and the convolution after it, as products with small constant matrices.

All three are linear and work on rows and columns apart, so each is two matrix products. A 3x3
convolution of a concatenation [x, enlarged maps] is the sum of the convolutions of its parts, and
that of an enlarged map is: the nine taps applied to the small map, then an enlargement whose
matrix has the shift of each tap in it. PSPNet's classifier spends half of its time on maps enlarged
from 1x1 to 6x6; this way that half costs next to nothing (model/README.md has the numbers).
"""

import functools
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def upsample(x: Tensor, size: Sequence[int]) -> Tensor:
    """Bilinear with corners aligned, as everywhere in these networks; at equal size x itself."""
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    return F.interpolate(x, list(size), mode="bilinear", align_corners=True)


def pyramid_pool(x: Tensor, bins: Sequence[int]) -> list[Tensor]:
    """Average of x (N, C, h, w) in b x b bins, for every b: [(N, C, b, b), ...].

    The bins are those of adaptive average pooling, which may overlap by a row or column.
    """
    n, channels, height, width = x.shape
    # Matrices of 0 and 1 are exact in any precision; divided by the counts are the sums.
    rows = torch.cat([_constant(bin_members, x, height, b) for b in bins])
    if x.is_contiguous(memory_format=torch.channels_last):
        strips = rows @ x.permute(0, 2, 3, 1).reshape(n, height, width * channels)
        strips = strips.view(n, len(rows), width, channels)
    else:
        strips = (rows @ x).permute(0, 2, 3, 1)
    pooled = []
    for b, strip in zip(bins, strips.split(list(bins), dim=1), strict=True):
        columns, own_rows = (_constant(bin_members, x, side, b) for side in (width, height))
        strip = strip / own_rows.sum(dim=1).view(-1, 1, 1)
        mean = columns @ strip / columns.sum(dim=1).view(-1, 1)
        pooled.append(mean.permute(0, 3, 1, 2))
    return pooled


def conv3x3_of_concat(conv: nn.Conv2d, x: Tensor, maps: Sequence[Tensor]) -> Tensor:
    """`conv(torch.cat([x, *(upsample(m, size of x) for m in maps)], dim=1))`, for 3x3 with padding.

    Equal up to rounding, in values and gradients.
    """
    assert conv.kernel_size == (3, 3) and conv.padding == (1, 1) and conv.stride == (1, 1)
    height, width = x.shape[-2:]
    own, *weights = conv.weight.split([x.shape[1], *(m.shape[1] for m in maps)], dim=1)
    strips, rows = [], []
    for small, weight in zip(maps, weights, strict=True):
        h, w = small.shape[-2:]
        taps = torch.einsum("ncij,ocyx->nyixjo", small, weight).flatten(3, 4)  # (N, 3, h, 3w, O)
        strips.append((_constant(tap_weights, taps, width, w) @ taps).flatten(1, 2))
        rows.append(_constant(tap_weights, taps, height, h))
    strip = torch.cat(strips, dim=1)  # (N, K, width, O): K = 3 rows of taps x all rows of the maps
    enlarged = (torch.cat(rows, dim=1) @ strip.flatten(2)).view(-1, height, width, strip.shape[-1])
    return F.conv2d(x, own, conv.bias, padding=1) + enlarged.permute(0, 3, 1, 2)


def bin_members(side: int, bins: int) -> Tensor:
    """(bins, side): 1 where a position belongs to a bin, as in adaptive pooling."""
    start = torch.arange(bins) * side // bins
    stop = (torch.arange(1, bins + 1) * side + bins - 1) // bins
    position = torch.arange(side)
    return ((position >= start[:, None]) & (position < stop[:, None])).double()


def tap_weights(side: int, small: int) -> Tensor:
    """(side, 3 * small): what the small map's positions give to those of the enlarged one, tap by
    tap: column t * small + i is the weight of i at the position one before, at or after."""
    step = (small - 1) / torch.sym_max(side - 1, 1)
    position = torch.arange(side, dtype=torch.float64).mul(step)
    enlarge = (1 - (position[:, None] - torch.arange(small)).abs()).clamp(min=0)
    above, below = F.pad(enlarge, (0, 0, 1, 0))[:-1], F.pad(enlarge, (0, 0, 0, 1))[1:]
    return torch.cat([above, enlarge, below], dim=1)


def _constant(make: Callable[[int, int], Tensor], like: Tensor, side: int, small: int) -> Tensor:
    """make(side, small) in the precision and on the device of `like`, kept from call to call."""
    if torch.compiler.is_compiling() or type(like) not in (Tensor, nn.Parameter):
        return make(side, small).to(like)  # sizes may be symbols, tensors may have no values
    return _kept(make, side, small, like.dtype, like.device)


@functools.lru_cache(maxsize=256)
def _kept(
    make: Callable[[int, int], Tensor],
    side: int,
    small: int,
    dtype: torch.dtype,
    device: torch.device,
) -> Tensor:
    with torch.inference_mode(False), torch.no_grad():  # training may use what testing has made
        return make(side, small).to(device, dtype)
