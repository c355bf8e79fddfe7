"""What all networks here share: trunk -> context -> cls, with aux on layer3 while training."""

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from model.resnet import BACKBONES, STRIDE_8, ResNet
from util.config import Config
from util.error import ConfigError

NEW_LAYERS_LR_SCALE = 10.0  # layers that start from random weights learn faster than the trunk


class SegOutput(NamedTuple):
    """logits (N, classes, h, w); aux of the same shape in training mode, None in eval mode.

    h = (H - 1) / 8 * zoom_factor + 1 for an input of height H, likewise w; with
    `Segmentor.upsamples` False h = (H - 1) / 8 + 1.
    """

    logits: Tensor
    aux: Tensor | tuple[Tensor, ...] | None

    @property
    def auxiliary(self) -> tuple[Tensor, ...]:
        """The logits of all auxiliary heads."""
        return (self.aux,) if isinstance(self.aux, Tensor) else tuple(self.aux or ())


class Segmentor(nn.Module):
    """Dilated ResNet with a context module and two heads: (N, 3, H, W) -> SegOutput.

    A network names its context module, implements `context` and calls `add_heads`, in this order
    (the order of the published state dicts). H and W must be 8k+1.
    """

    aux_scales: tuple[float, ...] = (1.0,)  # of each auxiliary loss, times TRAIN.aux_weight

    def __init__(self, *, layers: int, zoom_factor: int, deep_base: bool) -> None:
        super().__init__()
        trunk = ResNet(layers, deep_base=deep_base, stages=STRIDE_8, classes=None)
        self.layer0 = trunk.stem()
        self.layer1, self.layer2 = trunk.layer1, trunk.layer2
        self.layer3, self.layer4 = trunk.layer3, trunk.layer4
        self.trunk_channels = trunk.channels
        self.zoom_factor = zoom_factor
        # False leaves the logits at 1/8 to whoever enlarges them cheaper: the loss, the predictor.
        self.upsamples = True

    @classmethod
    def from_config(cls, cfg: Config, *, deep_base: bool) -> "Segmentor":
        """The network that a config describes, with random weights."""
        raise AssertionError(f"{cls.__name__} must implement from_config()")

    @classmethod
    def check_config(
        cls, cfg: Config, *, is_test: bool = False, batch_norm_images: int | None = None
    ) -> None:
        """Raise ConfigError unless this network can be trained (tested) as the config says.

        `batch_norm_images`: how many images BatchNorm averages over, where that is known.
        """
        if cfg.layers not in BACKBONES:
            depths = ", ".join(map(str, BACKBONES))
            raise ConfigError(f"TRAIN.layers must be one of {depths}, got {cfg.layers}")
        names = ("test_h", "test_w") if is_test else ("train_h", "train_w")
        for name in names:
            section, side = ("TEST" if is_test else "TRAIN"), getattr(cfg, name)
            if side < 9 or side % 8 != 1:
                low = max(9, (side - 1) // 8 * 8 + 1)
                choices = "9" if side < 9 else f"{low}, {low + 8}"
                raise ConfigError(f"{section}.{name} must be 8*k+1, got {side}; nearest: {choices}")

    def add_heads(self, context_channels: int, classes: int, dropout: float) -> None:
        """Add `cls` on the context's output and `aux` on layer3's."""
        self.cls = head(context_channels, 512, classes, dropout)
        self.aux = head(self.trunk_channels[2], 256, classes, dropout)

    def context(self, x: Tensor) -> Tensor:
        """Features of layer4 -> features that know their surroundings, same h and w."""
        raise AssertionError(f"{type(self).__name__} must implement context()")

    def forward(self, x: Tensor) -> SegOutput:
        height, width = x.shape[-2:]
        assert height % 8 == 1 and width % 8 == 1, f"input sides must be 8k+1, got {height}x{width}"
        middle = self.layer3(self.layer2(self.layer1(self.layer0(x))))
        logits = self.cls(self.context(self.layer4(middle)))
        aux = self.aux(middle) if self.training else None

        if not self.upsamples:
            return SegOutput(logits, aux)
        size = list(self.label_sizes(height, width)[0])
        return SegOutput(upsample(logits, size), None if aux is None else upsample(aux, size))

    def label_sizes(self, height: int, width: int) -> list[tuple[int, int]]:
        """The sizes at which each head is compared with the label of a height x width image."""
        rows, columns = ((side - 1) // 8 * self.zoom_factor + 1 for side in (height, width))
        return [(rows, columns)] * (1 + len(self.aux_scales))

    def param_groups(self) -> list[dict]:
        """The trunk at the base learning rate, all newer modules at 10 times it (`lr_scale`)."""
        names = [f"layer{i}" for i in range(5)]
        trunk, new = [], []
        for name, child in self.named_children():
            (trunk if name in names else new).extend(child.parameters())
        return [
            {"params": trunk, "lr_scale": 1.0},
            {"params": new, "lr_scale": NEW_LAYERS_LR_SCALE},
        ]


def head(in_channels: int, channels: int, classes: int, dropout: float) -> nn.Sequential:
    """Classifier: (N, in_channels, h, w) -> (N, classes, h, w)."""
    return nn.Sequential(
        nn.Conv2d(in_channels, channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
        nn.Dropout2d(dropout),
        nn.Conv2d(channels, classes, 1),
    )


def upsample(x: Tensor, size: list[int]) -> Tensor:
    """Bilinear with corners aligned, as everywhere in these networks; at equal size x itself."""
    if list(x.shape[-2:]) == size:
        return x
    return F.interpolate(x, size, mode="bilinear", align_corners=True)
