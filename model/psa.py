"""Point-wise spatial attention (PSANet, Zhao et al., ECCV 2018), in plain PyTorch."""

import torch
from torch import Tensor, nn

from model.resample import upsample

COLLECT, DISTRIBUTE, BOTH = 0, 1, 2  # psa_type: which branches a network has


def psa_mask(logits: Tensor, mask_h: int, mask_w: int) -> Tensor:
    """Rearrange relative attention into absolute: (N, mask_h*mask_w, H, W) -> (N, H*W, H*W).

    Channel (i, j) at (h, w) weighs the position (y, x) = (h + i - mask_h//2, w + j - mask_w//2):

        out[n, y*W + x, h*W + w] = logits[n, i*mask_w + j, h, w]

    and 0 if (y, x) is outside the mask around (h, w) (section 3.3, figure 4). Column q of the
    result is what position q collects from all others (`collect`). Its transpose is `distribute`:
    row q is what position q gives to all others.
    """
    n, channels, height, width = logits.shape
    assert channels == mask_h * mask_w, f"{channels} channels, mask {mask_h}x{mask_w}"
    i, j = _offsets(height, mask_h, logits.device), _offsets(width, mask_w, logits.device)
    # Channel index of each (y, x, h, w), expanded over the batch without a copy.
    channel = i.clamp(0, mask_h - 1)[:, None, :, None] * mask_w
    channel = channel + j.clamp(0, mask_w - 1)[None, :, None, :]
    index = channel.reshape(1, height * width, height * width).expand(n, -1, -1)
    out = logits.flatten(2).gather(1, index)
    if (mask_h - 1) // 2 >= height - 1 and (mask_w - 1) // 2 >= width - 1:
        return out  # the mask covers the whole map from every position
    rows, columns = (i >= 0) & (i < mask_h), (j >= 0) & (j < mask_w)
    is_inside = rows[:, None, :, None] & columns[None, :, None, :]
    return out.masked_fill_(~is_inside.reshape(1, height * width, height * width), 0)


def _offsets(side: int, mask: int, device: torch.device) -> Tensor:
    """Return (y, h) -> index of y in the mask around h; outside 0..mask-1 it is not covered."""
    positions = torch.arange(side, device=device)
    return positions[:, None] - positions[None, :] + mask // 2


class PSA(nn.Module):
    """Point-wise spatial attention (section 3): (N, C, h, w) -> (N, C, h', w'), downsampled by
    shrink_factor.

    Args:
        channels: C.
        psa_type: 0 collect, 1 distribute, 2 both.
        compact: attention channels are absolute positions instead of a relative mask;
            mask_h x mask_w must then be the size of the downsampled map.
        shrink_factor: attention is computed on maps of side (n - 1) // shrink_factor + 1.
        mask_h, mask_w: size of the mask; larger than 2 * side - 1 has no effect.
        normalization_factor: divisor of the attended features; None = mask_h * mask_w.
        psa_softmax: apply softmax over the summed positions.
    """

    def __init__(
        self,
        channels: int,
        *,
        psa_type: int,
        compact: bool,
        shrink_factor: int,
        mask_h: int,
        mask_w: int,
        normalization_factor: float | None,
        psa_softmax: bool,
        reduced: int = 512,
    ) -> None:
        super().__init__()
        self.psa_type, self.compact, self.shrink_factor = psa_type, compact, shrink_factor
        self.mask_h, self.mask_w, self.psa_softmax = mask_h, mask_w, psa_softmax
        self.normalization_factor = normalization_factor or mask_h * mask_w
        self.reduce = conv_bn_relu(channels, reduced)
        self.attention = attention_head(reduced, mask_h * mask_w)
        if psa_type == BOTH:
            self.reduce_p = conv_bn_relu(channels, reduced)
            self.attention_p = attention_head(reduced, mask_h * mask_w)
        self.proj = conv_bn_relu(reduced * (2 if psa_type == BOTH else 1), channels)

    def forward(self, x: Tensor) -> Tensor:
        attended = [
            (features.flatten(2) @ weights).view_as(features) / self.normalization_factor
            for features, weights in self.branches(x)
        ]
        return self.proj(torch.cat(attended, dim=1))

    def branches(self, x: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Return features (N, C', h', w') and attention (N, h'w', h'w') per branch, collect first.

        attention[n, p, q] is the weight of position p in the sum at position q.
        """
        if self.psa_type == BOTH:
            return [
                self._branch(x, self.reduce, self.attention, is_distribute=False),
                self._branch(x, self.reduce_p, self.attention_p, is_distribute=True),
            ]
        is_distribute = self.psa_type == DISTRIBUTE
        return [self._branch(x, self.reduce, self.attention, is_distribute=is_distribute)]

    def _branch(
        self, x: Tensor, reduce: nn.Module, attention: nn.Module, *, is_distribute: bool
    ) -> tuple[Tensor, Tensor]:
        features = reduce(x)
        size = [(side - 1) // self.shrink_factor + 1 for side in x.shape[-2:]]
        features = upsample(features, size)
        logits = attention(features)
        if self.compact:
            assert logits.shape[1] == size[0] * size[1], f"mask and map differ: {size}"
            weights = logits.flatten(2)
        else:
            weights = psa_mask(logits, self.mask_h, self.mask_w)
        # Transpose last and as a view, so that softmax makes the only copy.
        if self.psa_softmax:
            weights = weights.softmax(dim=2 if is_distribute else 1)
        return features, weights.transpose(1, 2) if is_distribute else weights


def conv_bn_relu(in_channels: int, channels: int) -> nn.Sequential:
    """1x1 convolution, BatchNorm, ReLU."""
    return nn.Sequential(
        nn.Conv2d(in_channels, channels, 1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
    )


def attention_head(channels: int, mask_channels: int) -> nn.Sequential:
    """Features -> attention logits, one channel per position of the mask."""
    return nn.Sequential(
        *conv_bn_relu(channels, channels), nn.Conv2d(channels, mask_channels, 1, bias=False)
    )
