"""PSPNet: Pyramid Scene Parsing Network (Zhao et al., CVPR 2017)."""

import torch
from torch import Tensor, nn

from model.segmentor import Segmentor, upsample
from util.config import Config
from util.error import ConfigError


class PPM(nn.Module):
    """Pyramid pooling (section 3.2): pool at several bins, reduce, upsample, concatenate.

    (N, C, h, w) -> (N, C + len(bins) * (C // len(bins)), h, w), that is 2C for four bins.
    """

    def __init__(self, channels: int, bins: tuple[int, ...]) -> None:
        super().__init__()
        reduced = channels // len(bins)
        self.features = nn.ModuleList(
            nn.Sequential(
                nn.AdaptiveAvgPool2d(bin_size),
                nn.Conv2d(channels, reduced, 1, bias=False),
                nn.BatchNorm2d(reduced),
                nn.ReLU(inplace=True),
            )
            for bin_size in bins
        )
        self.out_channels = channels + reduced * len(bins)

    def forward(self, x: Tensor) -> Tensor:
        size = list(x.shape[-2:])
        return torch.cat([x] + [upsample(level(x), size) for level in self.features], dim=1)


class PSPNet(Segmentor):
    """ResNet at stride 8, PPM, classifier: (N, 3, H, W) -> SegOutput.

    Args:
        layers: depth of the ResNet (18, 34, 50, 101, 152).
        classes: channels of the logits.
        zoom_factor: 1, 2, 4 or 8; logits have sides (H - 1) / 8 * zoom_factor + 1.
        bins: sides of the pooled maps.
        dropout: probability of dropping a channel before the last convolution.
        deep_base: three-convolution stem instead of the plain 7x7 one.
    """

    def __init__(
        self,
        *,
        layers: int = 50,
        classes: int = 2,
        zoom_factor: int = 8,
        bins: tuple[int, ...] = (1, 2, 3, 6),
        dropout: float = 0.1,
        deep_base: bool = True,
    ) -> None:
        super().__init__(layers=layers, zoom_factor=zoom_factor, deep_base=deep_base)
        self.ppm = PPM(self.trunk_channels[3], tuple(bins))
        self.add_heads(self.ppm.out_channels, classes, dropout)

    @classmethod
    def from_config(cls, cfg: Config, *, deep_base: bool) -> "PSPNet":
        return cls(
            layers=cfg.layers, classes=cfg.classes, zoom_factor=cfg.zoom_factor, deep_base=deep_base
        )

    @classmethod
    def check_config(
        cls, cfg: Config, *, is_test: bool = False, batch_norm_images: int | None = None
    ) -> None:
        super().check_config(cfg, is_test=is_test)
        # The 1x1 bin leaves one value per channel and image, and BatchNorm needs two.
        if batch_norm_images == 1 and not cfg.freeze_bn:
            raise ConfigError(
                f"TRAIN.batch_size {cfg.batch_size} gives BatchNorm one image at a time, but in "
                f"PSPNet's 1x1 bin it needs two: set batch_size {2 * cfg.batch_size} or more, or "
                "TRAIN.freeze_bn True"
            )

    def context(self, x: Tensor) -> Tensor:
        return self.ppm(x)
