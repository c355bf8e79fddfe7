"""Pooling, upsampling and the convolution after it, as products with small constant matrices.

All three are linear and separable, so each is two matrix products. A 3x3 convolution of a
concatenation [x, upsampled maps] is the sum of the convolutions of its parts, and that of an
upsampled map equals applying the nine taps to the small map, then upsampling with a matrix that
includes the shift of each tap. PSPNet's classifier spends half of its time on maps upsampled from
1x1 to 6x6; this makes that half almost free.
"""

import functools
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def upsample(x: Tensor, size: Sequence[int]) -> Tensor:
    """Upsample bilinearly with aligned corners; returns x itself if the size is the same."""
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    return F.interpolate(x, list(size), mode="bilinear", align_corners=True)


def pyramid_pool(x: Tensor, bins: Sequence[int]) -> list[Tensor]:
    """Average x (N, C, h, w) in b x b bins for each b in `bins`: [(N, C, b, b), ...].

    The bins are those of adaptive average pooling, which may overlap by a row or column.
    """
    n, channels, height, width = x.shape
    # Matrices of 0 and 1 are exact in any precision, so divide the sums by the counts.
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
    """Compute `conv(torch.cat([x, *(upsample(m, x.shape[-2:]) for m in maps)], dim=1))`.

    `conv` is 3x3 with padding 1. Values and gradients are equal up to rounding.
    """
    own, rest = _split_weight(conv, x.shape[1])
    enlarged = _conv3x3_of_upsampled(rest, maps, x.shape[-2:])
    return F.conv2d(x, own, conv.bias, padding=1) + enlarged


class SplitConv3x3(nn.Module):
    """`conv3x3_of_concat` for inference: copies the parts of its weights once, not in each call.

    Args:
        conv: 3x3 with padding 1.
        channels: those of `x`, the first of the concatenated maps.
    """

    def __init__(self, conv: nn.Conv2d, channels: int) -> None:
        super().__init__()
        own, rest = _split_weight(conv, channels)
        has_bias = conv.bias is not None
        self.own = nn.Conv2d(channels, conv.out_channels, 3, padding=1, bias=has_bias).to(own)
        self.own.weight, self.own.bias = nn.Parameter(own.detach().clone()), conv.bias
        # Flat, as .to(memory_format=torch.channels_last) would reorder four dimensions.
        self.rest = nn.Parameter(rest.detach().flatten(1).contiguous())

    def forward(self, x: Tensor, maps: Sequence[Tensor]) -> Tensor:
        rest = self.rest.view(len(self.rest), 3, 3, -1)
        return self.own(x) + _conv3x3_of_upsampled(rest, maps, x.shape[-2:])


def _split_weight(conv: nn.Conv2d, channels: int) -> tuple[Tensor, Tensor]:
    """Split a 3x3 weight (O, C, 3, 3) into that of the first `channels`, and (C', 3, 3, O)."""
    assert conv.kernel_size == (3, 3) and conv.padding == (1, 1) and conv.stride == (1, 1)
    own, rest = conv.weight.split([channels, conv.in_channels - channels], dim=1)
    return own, rest.permute(1, 2, 3, 0)


def _conv3x3_of_upsampled(weight: Tensor, maps: Sequence[Tensor], size: Sequence[int]) -> Tensor:
    """Convolve the concatenation of maps upsampled to `size`: weight (C, 3, 3, O) -> (N, O, *size).

    No map is upsampled before it has been convolved.
    """
    height, width = size
    strips, rows = [], []
    for small, part in zip(maps, weight.split([m.shape[1] for m in maps]), strict=True):
        h, w = small.shape[-2:]
        taps = torch.einsum("ncij,cyxo->nyixjo", small, part).flatten(3, 4)  # (N, 3, h, 3w, O)
        strips.append((_constant(tap_weights, taps, width, w) @ taps).flatten(1, 2))
        rows.append(_constant(tap_weights, taps, height, h))
    strip = torch.cat(strips, dim=1)  # (N, K, width, O): K = 3 rows of taps x all rows of the maps
    enlarged = torch.cat(rows, dim=1) @ strip.flatten(2)
    return enlarged.view(-1, height, width, strip.shape[-1]).permute(0, 3, 1, 2)


def bin_members(side: int, bins: int) -> Tensor:
    """Return (bins, side): 1 where a position belongs to a bin, as in adaptive pooling."""
    start = torch.arange(bins) * side // bins
    stop = (torch.arange(1, bins + 1) * side + bins - 1) // bins
    position = torch.arange(side)
    return ((position >= start[:, None]) & (position < stop[:, None])).double()


def tap_weights(side: int, small: int) -> Tensor:
    """Return upsampling weights (side, 3 * small) for the three taps of a convolution.

    Column t * small + i is the weight of position i of the small map at the previous (t = 0), the
    same (1) or the next (2) position of the upsampled map.
    """
    step = (small - 1) / torch.sym_max(side - 1, 1)
    position = torch.arange(side, dtype=torch.float64).mul(step)
    enlarge = (1 - (position[:, None] - torch.arange(small)).abs()).clamp(min=0)
    above, below = F.pad(enlarge, (0, 0, 1, 0))[:-1], F.pad(enlarge, (0, 0, 0, 1))[1:]
    return torch.cat([above, enlarge, below], dim=1)


def _constant(make: Callable[[int, int], Tensor], like: Tensor, side: int, small: int) -> Tensor:
    """Return make(side, small) with dtype and device of `like`, cached between calls."""
    if torch.compiler.is_compiling() or type(like) not in (Tensor, nn.Parameter):
        return make(side, small).to(like)  # not cached: sizes may be symbolic, tensors fake
    return _cached(make, side, small, like.dtype, like.device)


@functools.lru_cache(maxsize=256)
def _cached(
    make: Callable[[int, int], Tensor],
    side: int,
    small: int,
    dtype: torch.dtype,
    device: torch.device,
) -> Tensor:
    with (
        torch.inference_mode(False),
        torch.no_grad(),
    ):  # training may use a matrix cached by testing
        return make(side, small).to(device, dtype)
