"""Base class of the networks: trunk -> context -> cls, and in training an auxiliary head."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from model.backbones import Backbone, traits_of
from model.resample import SplitConv3x3, conv3x3_of_concat, upsample
from model.resnet import ResNet, depth_of
from util.config import Config
from util.error import ConfigError

NEW_LAYERS_LR_SCALE = 10.0  # learning rate of randomly initialised layers, relative to the trunk


class SegOutput(NamedTuple):
    """Logits (N, classes, h, w) and auxiliary logits; their corners are aligned with the input's.

    `aux` is None in eval mode, else a Tensor (N, classes, h', w') or a tuple of them.
    """

    logits: Tensor
    aux: Tensor | tuple[Tensor, ...] | None

    @property
    def auxiliary(self) -> tuple[Tensor, ...]:
        """Logits of all auxiliary heads."""
        return (self.aux,) if isinstance(self.aux, Tensor) else tuple(self.aux or ())


class Sides(NamedTuple):
    """Valid sides of input images: step * k + rest, k >= 1."""

    step: int
    rest: int

    def next(self, side: int) -> int:
        """Return the smallest valid side >= `side`."""
        return max(1, -((self.rest - side) // self.step)) * self.step + self.rest

    def check(self, name: str, side: int) -> None:
        above = self.next(side)
        if side == above:
            return
        below = above - self.step
        nearest = f"{below}, {above}" if below > self.step else f"{above}"
        must = f"{self.step}*k+1" if self.rest else f"a multiple of {self.step}"
        raise ConfigError(f"{name} must be {must}, got {side}; nearest: {nearest}")


class Segmentor(nn.Module):
    """A trunk, a context module and two heads: (N, 3, H, W) -> SegOutput.

    A network creates its context module, implements `context` and calls `add_heads`, in this order
    (that of the published state dicts).
    """

    layer0: nn.Sequential
    layer1: nn.Sequential
    layer2: nn.Sequential
    layer3: nn.Sequential
    layer4: nn.Sequential
    cls: nn.Module
    aux: nn.Module
    aux_scales: tuple[float, ...] = (1.0,)  # per auxiliary loss, multiplied by TRAIN.aux_weight
    resnet_step = 8  # with our ResNets, input sides are resnet_step * k + 1

    def __init__(self, trunk: ResNet | Backbone, *, zoom_factor: int, fused: bool) -> None:
        super().__init__()
        if isinstance(trunk, ResNet):
            self.layer0 = trunk.stem()
            self.layer1, self.layer2 = trunk.layer1, trunk.layer2
            self.layer3, self.layer4 = trunk.layer3, trunk.layer4
            self.sides = Sides(self.resnet_step, 1)
        else:
            self.backbone, self.sides = trunk, Sides(trunk.side_step, 0)
        self.trunk_channels = trunk.channels[-2:]
        self.zoom_factor = zoom_factor
        self.fused = fused
        # False keeps the logits at 1/8: the loss and the predictor upsample them more cheaply.
        self.upsamples = True

    @classmethod
    def from_config(cls, cfg: Config, trunk: ResNet | Backbone) -> "Segmentor":
        """Build the network of a config on this trunk."""
        raise AssertionError(f"{cls.__name__} must implement from_config()")

    @classmethod
    def check_config(
        cls, cfg: Config, *, is_test: bool = False, batch_norm_images: int | None = None
    ) -> None:
        """Raise ConfigError if this network cannot be trained or tested as configured.

        `batch_norm_images` is the number of images in each BatchNorm statistic, if known.
        """
        is_ours = depth_of(cfg) is not None
        if cfg.activation_checkpointing and not is_ours:
            raise ConfigError(
                "TRAIN.activation_checkpointing True works with the ResNets of this project, not "
                f"with TRAIN.backbone {cfg.backbone}: set it to False"
            )
        sides = Sides(cls.resnet_step, 1) if is_ours else Sides(traits_of(cfg.backbone).step, 0)
        section = "TEST" if is_test else "TRAIN"
        for name in ("test_h", "test_w") if is_test else ("train_h", "train_w"):
            sides.check(f"{section}.{name}", getattr(cfg, name))

    def valid_side(self, side: int) -> int:
        """Return the smallest valid input side >= `side`."""
        return self.sides.next(side)

    def add_heads(self, context_channels: int, classes: int, dropout: float) -> None:
        """Add `cls` on the context's output and `aux` on the second-to-last stage."""
        self.cls = head(context_channels, 512, classes, dropout)
        self.aux = head(self.trunk_channels[0], 256, classes, dropout)

    def trunk(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the features of the last two stages (ResNet: layer3 and layer4)."""
        if hasattr(self, "backbone"):
            return self.backbone(x)
        middle = self.layer3(self.layer2(self.layer1(self.layer0(x))))
        return middle, self.layer4(middle)

    def context(self, x: Tensor) -> list[Tensor]:
        """Return the inputs of `cls` for the trunk's features x: a map, and smaller maps that are
        upsampled to its size and concatenated."""
        raise AssertionError(f"{type(self).__name__} must implement context()")

    def forward(self, x: Tensor) -> SegOutput:
        size = list(x.shape[-2:])
        assert size == [self.valid_side(side) for side in size], f"invalid input size {size}"
        middle, last = self.trunk(x)
        logits = self.classify(self.context(last))
        aux = self.aux(middle) if self.training else None
        if not self.upsamples:
            return SegOutput(logits, aux)
        sides = self.label_sizes(*size)[0]
        return SegOutput(upsample(logits, sides), None if aux is None else upsample(aux, sides))

    def label_sizes(self, height: int, width: int) -> list[tuple[int, int]]:
        """Return the size at which the loss compares each head with a height x width label."""
        rows, columns = ((side - 1) * self.zoom_factor // 8 + 1 for side in (height, width))
        return [(rows, columns)] * (1 + len(self.aux_scales))

    def classify(self, maps: list[Tensor]) -> Tensor:
        """Apply `cls` to the maps, upsampled to the size of the first one and concatenated.

        `fused` never creates the upsampled maps: equal up to rounding and much faster
        (resample.py).
        """
        x, *smaller = maps
        if not self.fused:
            size = x.shape[-2:]
            return self.cls(torch.cat([x, *(upsample(small, size) for small in smaller)], dim=1))
        assert isinstance(self.cls, nn.Sequential)
        conv, *layers = self.cls
        if isinstance(conv, SplitConv3x3):
            x = conv(x, smaller)
        else:
            assert isinstance(conv, nn.Conv2d)
            x = conv3x3_of_concat(conv, x, smaller)
        for layer in layers:
            x = layer(x)
        return x

    def prepare_inference(self) -> None:
        """Keep the logits at 1/8, drop the auxiliary head, split the classifier's weights."""
        self.upsamples = False
        self.aux = nn.Identity()
        if self.fused and isinstance(self.cls, nn.Sequential):
            assert isinstance(self.cls[0], nn.Conv2d)
            self.cls[0] = SplitConv3x3(self.cls[0], self.trunk_channels[1])

    def classifier_names(self) -> list[str]:
        """Names in the state dict whose shapes depend on the number of classes."""
        return [f"{head}.4.{part}" for head in ("cls", "aux") for part in ("weight", "bias")]

    def param_groups(self) -> list[dict]:
        """Return parameter groups: the trunk, and all newer modules with 10 times its rate."""
        names = ["backbone", *(f"layer{i}" for i in range(5))]
        trunk: list[nn.Parameter] = []
        new: list[nn.Parameter] = []
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
