"""ICNet: Image Cascade Network for real-time segmentation (Zhao et al., ECCV 2018).

Also an example of how to add a network: this file, and a row in `model/build.py`.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from model.backbones import Backbone
from model.resample import pyramid_pool, upsample
from model.resnet import STRIDE_8, ResNet, depth_of
from model.segmentor import Segmentor, SegOutput
from util.config import Config
from util.error import ConfigError

FUSED = 128  # channels of fused branches
BINS = (1, 2, 3, 6)


class ICNet(Segmentor):
    """Three branches, from deep and coarse to shallow and fine: (N, 3, H, W) -> SegOutput.

    The image at 1/4 passes through the whole ResNet, at 1/2 through its first layers (with shared
    weights and computation), at full size through three convolutions. Cascade feature fusion joins
    the branches; two auxiliary heads supervise the coarser ones in training.

    Args:
        layers, classes, zoom_factor, deep_base, trunk: as in PSPNet. H and W are 32k+1.
    """

    aux_scales = (1.0, 0.4)  # at 1/8 and 1/16: 0.4 and 0.16 with TRAIN.aux_weight 0.4 (section 3.4)
    resnet_step = 32

    def __init__(
        self,
        *,
        layers: int = 50,
        classes: int = 2,
        zoom_factor: int = 8,
        deep_base: bool = True,
        trunk: ResNet | None = None,
    ) -> None:
        trunk = trunk or ResNet(layers, deep_base=deep_base, stages=STRIDE_8, classes=None)
        super().__init__(trunk, zoom_factor=zoom_factor, fused=True)
        _, half, _, quarter = trunk.channels
        self.high = nn.Sequential(*(conv_bn_relu(a, b, 3, 2) for a, b in ((3, 32), (32, 32))))
        self.high.append(conv_bn_relu(32, 64, 3, 2))
        self.low = conv_bn_relu(quarter, quarter // 4, 1)
        self.fuse_half = Fusion(quarter // 4, half)
        self.fuse_full = Fusion(FUSED, 64)
        self.cls = nn.Conv2d(FUSED, classes, 1)
        self.aux = nn.ModuleList(nn.Conv2d(c, classes, 1) for c in (FUSED, quarter // 4))

    @classmethod
    def from_config(cls, cfg: Config, trunk: ResNet | Backbone) -> "ICNet":
        assert isinstance(trunk, ResNet)  # see check_config
        return cls(classes=cfg.classes, zoom_factor=cfg.zoom_factor, trunk=trunk)

    @classmethod
    def check_config(
        cls, cfg: Config, *, is_test: bool = False, batch_norm_images: int | None = None
    ) -> None:
        if depth_of(cfg) is None:
            raise ConfigError(
                "ICNet splits a ResNet between two branches: TRAIN.backbone must be resnet18, 34, "
                f"50, 101 or 152, got {cfg.backbone}"
            )
        super().check_config(cfg, is_test=is_test)

    def forward(self, x: Tensor) -> SegOutput:
        size = list(x.shape[-2:])
        assert size == [self.valid_side(side) for side in size], f"invalid input size {size}"
        # With aligned corners, halving the size means taking every second pixel.
        half = self.layer2[0](self.layer1(self.layer0(x[..., ::2, ::2])))  # at 1/16 of x
        quarter = half[..., ::2, ::2]
        for layer in (*self.layer2[1:], self.layer3, self.layer4):
            quarter = layer(quarter)  # at 1/32
        pooled = (upsample(p, quarter.shape[-2:]) for p in pyramid_pool(quarter, BINS))
        low = self.low(quarter + sum(pooled))

        low, middle = self.fuse_half(low, half)
        middle, fused = self.fuse_full(middle, self.high(x))
        logits = self.cls(enlarge_twice(fused))  # at 1/4
        aux = None
        if self.training:
            assert isinstance(self.aux, nn.ModuleList)
            aux = tuple(head(m) for head, m in zip(self.aux, (middle, low), strict=True))
        if self.upsamples:
            logits = upsample(logits, self.label_sizes(*size)[0])
        return SegOutput(logits, aux)

    def label_sizes(self, height: int, width: int) -> list[tuple[int, int]]:
        """Sizes of the logits, by zoom_factor (2: 1/4), and of the auxiliary heads (1/8, 1/16)."""
        aux = [((height - 1) // s + 1, (width - 1) // s + 1) for s in (8, 16)]
        return [super().label_sizes(height, width)[0], *aux]

    def classifier_names(self) -> list[str]:
        return [f"{h}.{p}" for h in ("cls", "aux.0", "aux.1") for p in ("weight", "bias")]


class Fusion(nn.Module):
    """Cascade feature fusion (section 3.3) of coarse (N, A, h, w) and fine (N, B, 2h-1, 2w-1).

    Returns the upsampled coarse features, for the auxiliary head, and the sum, with 128 channels.
    """

    def __init__(self, coarse_channels: int, fine_channels: int) -> None:
        super().__init__()
        self.coarse = nn.Sequential(
            nn.Conv2d(coarse_channels, FUSED, 3, padding=2, dilation=2, bias=False),
            nn.BatchNorm2d(FUSED),
        )
        self.fine = nn.Sequential(
            nn.Conv2d(fine_channels, FUSED, 1, bias=False), nn.BatchNorm2d(FUSED)
        )

    def forward(self, coarse: Tensor, fine: Tensor) -> tuple[Tensor, Tensor]:
        enlarged = upsample(coarse, fine.shape[-2:])
        return enlarged, F.relu(self.coarse(enlarged) + self.fine(fine))


def conv_bn_relu(in_channels: int, channels: int, size: int, stride: int = 1) -> nn.Sequential:
    """Convolution with same padding, BatchNorm, ReLU."""
    return nn.Sequential(
        nn.Conv2d(in_channels, channels, size, stride, size // 2, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
    )


def enlarge_twice(x: Tensor) -> Tensor:
    """(N, C, h, w) -> (N, C, 2h-1, 2w-1), corners aligned."""
    return upsample(x, [2 * side - 1 for side in x.shape[-2:]])
