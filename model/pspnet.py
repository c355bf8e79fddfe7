"""PSPNet: Pyramid Scene Parsing Network (Zhao et al., CVPR 2017)."""

from torch import Tensor, nn

from model.backbones import Backbone
from model.resample import pyramid_pool
from model.resnet import STRIDE_8, ResNet
from model.segmentor import Segmentor
from util.config import Config
from util.error import ConfigError


class PPM(nn.Module):
    """Pyramid pooling (section 3.2): average pooling to several bins, each reduced by a 1x1
    convolution: (N, C, h, w) -> [(N, C // len(bins), b, b) for b in bins].
    """

    def __init__(self, channels: int, bins: tuple[int, ...]) -> None:
        super().__init__()
        self.bins = bins
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

    def forward(self, x: Tensor, *, fused: bool) -> list[Tensor]:
        """Pool and reduce; `fused` uses matrix products: equal up to rounding, and exportable."""
        if not fused:
            return [level(x) for level in self.features]
        pooled = pyramid_pool(x, self.bins)
        reduced = []
        for level, small in zip(self.features, pooled, strict=True):
            assert isinstance(level, nn.Sequential)
            reduced.append(level[1:](small))
        return reduced


class PSPNet(Segmentor):
    """ResNet at stride 8, PPM, classifier: (N, 3, H, W) -> SegOutput.

    Args:
        layers: depth of the ResNet (18, 34, 50, 101, 152).
        classes: channels of the logits.
        zoom_factor: 1, 2, 4 or 8; logits have sides (H - 1) / 8 * zoom_factor + 1.
        bins: sides of the pooled maps.
        dropout: probability of dropping a channel before the last convolution.
        deep_base: three-convolution stem instead of the plain 7x7 one.
        fused: convolve context maps before upsampling them (Segmentor.classify).
        trunk: another backbone; `layers` and `deep_base` are then ignored.
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
        fused: bool = True,
        trunk: ResNet | Backbone | None = None,
    ) -> None:
        trunk = trunk or ResNet(layers, deep_base=deep_base, stages=STRIDE_8, classes=None)
        super().__init__(trunk, zoom_factor=zoom_factor, fused=fused)
        self.ppm = PPM(self.trunk_channels[1], tuple(bins))
        self.add_heads(self.ppm.out_channels, classes, dropout)

    @classmethod
    def from_config(cls, cfg: Config, trunk: ResNet | Backbone) -> "PSPNet":
        return cls(
            classes=cfg.classes,
            zoom_factor=cfg.zoom_factor,
            trunk=trunk,
            fused=cfg.classifier == "fused",
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

    def context(self, x: Tensor) -> list[Tensor]:
        return [x, *self.ppm(x, fused=self.fused)]
