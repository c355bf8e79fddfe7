"""3x3 convolutions with 2.25 times fewer multiplications: F(2x2, 3x3) of Lavin and Gray, CVPR 2016.

Outputs come in tiles of 2x2, each from the 4x4 inputs around it. Sums and differences of these
inputs are multiplied with transformed weights, 16 products per tile and channel instead of 36;
sums and differences of the products are the outputs. The products are matrix products over the
channels, which take nearly all of the time, so 512 channels gain most and fewer than 256 nothing.
"""

from collections.abc import Sequence
from typing import TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEAST_CHANNELS = 256
BLOCK_FLOATS = 2**20  # of transformed inputs per matrix product: they stay in the cache


class WinogradConv2d(nn.Module):
    """A convolution for which `is_suitable`: (N, C, h, w) -> (N, O, h, w), equal up to rounding.

    Fastest with channels last, which is the memory format of its result.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        assert is_suitable(conv), conv
        taps = conv.weight.detach()
        values = [[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]]
        transform = torch.tensor(values).to(taps)
        weight = torch.einsum("iy,ocyx,jx->jico", transform, taps, transform)
        weight = weight.flatten(0, 1).contiguous()
        self.weight = nn.Parameter(weight, requires_grad=False)  # (16, C, O)
        self.bias = conv.bias
        self.dilation = conv.dilation[0]

    def forward(self, x: Tensor) -> Tensor:
        n, channels, height, width = x.shape
        # With dilation d every d-th row and column forms a grid of its own, with its own tiles.
        d = self.dilation
        down, across = (-(-side // (2 * d)) for side in (height, width))  # tiles
        padding = (0, 0, d, (2 * across + 1) * d - width, d, (2 * down + 1) * d - height)
        padded = F.pad(x.permute(0, 2, 3, 1), padding)
        padded = padded.view(n, 2 * down + 2, d, 2 * across + 2, d, channels)
        out = padded.new_empty(n, down, 2, d, across, 2, d, self.weight.shape[2])
        step = max(1, BLOCK_FLOATS // (16 * d * across * d * channels))
        for image, target in zip(padded, out, strict=True):
            for first in range(0, down, step):
                last = min(down, first + step)
                self._convolve(image[2 * first : 2 * last + 2], target[first:last])
        out = out.view(n, 2 * down * d, 2 * across * d, -1)[:, :height, :width]
        if self.bias is not None:
            out += self.bias
        return out.permute(0, 3, 1, 2)

    def _convolve(self, x: Tensor, out: Tensor) -> None:
        """Compute rows of tiles: (2 r + 2, d, 2 q + 2, d, C) -> out (r, 2, d, q, 2, d, O)."""
        rows = _transform(x.unfold(0, 4, 2).unbind(-1))  # (4, r, d, 2 q + 2, d, C)
        tiles = _transform(rows.unfold(3, 4, 2).unbind(-1))  # (4, 4, r, d, q, d, C): columns first
        products = torch.bmm(tiles.flatten(0, 1).flatten(1, -2), self.weight)
        products = products.view(*tiles.shape[:-1], -1)
        columns = products.new_empty(2, *products.shape[1:])
        _sum_up(products, columns[0], columns[1])
        for column, target in zip(columns, out.unbind(4), strict=True):
            _sum_up(column, target[:, 0], target[:, 1])


def is_suitable(module: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Whether a module is a 3x3 convolution that this algorithm can compute and speed up."""
    return (
        type(module) is nn.Conv2d
        and module.kernel_size == (3, 3)
        and module.stride == (1, 1)
        and module.groups == 1
        and module.padding == module.dilation
        and module.dilation[0] == module.dilation[1]
        and module.padding_mode == "zeros"
        and min(module.in_channels, module.out_channels) >= LEAST_CHANNELS
    )


def _transform(x: Sequence[Tensor]) -> Tensor:
    """Transform the four inputs of each tile along one dimension: (4, *x[0].shape)."""
    out = x[0].new_empty(4, *x[0].shape)
    torch.sub(x[0], x[2], out=out[0])
    torch.add(x[1], x[2], out=out[1])
    torch.sub(x[2], x[1], out=out[2])
    torch.sub(x[1], x[3], out=out[3])
    return out


def _sum_up(products: Tensor, first: Tensor, second: Tensor) -> None:
    """Write a tile's two outputs along one dimension from its four products (4, ...)."""
    torch.add(products[0], products[1], out=first).add_(products[2])
    torch.sub(products[1], products[2], out=second).sub_(products[3])
