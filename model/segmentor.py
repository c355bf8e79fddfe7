"""What the networks share: trunk -> context -> cls, and in training aux on the stage before."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from model.backbones import Backbone, traits_of
from model.resample import conv3x3_of_concat, upsample
from model.resnet import ResNet, depth_of
from util.config import Config
from util.error import ConfigError

NEW_LAYERS_LR_SCALE = 10.0  # layers that start from random weights learn faster than the trunk


class SegOutput(NamedTuple):
    """logits (N, classes, h, w); aux None in eval mode, else one Tensor (N, classes, h', w') or
    a tuple of them, for the auxiliary losses.

    Corners of the maps are those of the input.
    """

    logits: Tensor
    aux: Tensor | tuple[Tensor, ...] | None

    @property
    def auxiliary(self) -> tuple[Tensor, ...]:
        """The logits of all auxiliary heads."""
        return (self.aux,) if isinstance(self.aux, Tensor) else tuple(self.aux or ())


class Sides(NamedTuple):
    """Which sides an image may have: step * k + rest, k >= 1."""

    step: int
    rest: int

    def next(self, side: int) -> int:
        """The smallest valid side of at least `side`."""
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

    A network names its context module, implements `context` and calls `add_heads`, in this order
    (the order of the published state dicts).
    """

    layer0: nn.Sequential
    layer1: nn.Sequential
    layer2: nn.Sequential
    layer3: nn.Sequential
    layer4: nn.Sequential
    cls: nn.Module
    aux: nn.Module
    aux_scales: tuple[float, ...] = (1.0,)  # of each auxiliary loss, times TRAIN.aux_weight
    resnet_step = 8  # with a ResNet of ours the sides of the input are resnet_step * k + 1

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
        # False leaves the logits at 1/8 to whoever enlarges them cheaper: the loss, the predictor.
        self.upsamples = True

    @classmethod
    def from_config(cls, cfg: Config, trunk: ResNet | Backbone) -> "Segmentor":
        """The network that a config describes, on this trunk."""
        raise AssertionError(f"{cls.__name__} must implement from_config()")

    @classmethod
    def check_config(
        cls, cfg: Config, *, is_test: bool = False, batch_norm_images: int | None = None
    ) -> None:
        """Raise ConfigError unless this network can be trained (tested) as the config says.

        `batch_norm_images`: how many images BatchNorm averages over, where that is known.
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
        """The smallest side of at least `side` that the network takes."""
        return self.sides.next(side)

    def add_heads(self, context_channels: int, classes: int, dropout: float) -> None:
        """Add `cls` on the context's output and `aux` on the stage before the last."""
        self.cls = head(context_channels, 512, classes, dropout)
        self.aux = head(self.trunk_channels[0], 256, classes, dropout)

    def trunk(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Features of the stage before the last, and of the last: ResNet's layer3 and layer4."""
        if hasattr(self, "backbone"):
            return self.backbone(x)
        middle = self.layer3(self.layer2(self.layer1(self.layer0(x))))
        return middle, self.layer4(middle)

    def context(self, x: Tensor) -> list[Tensor]:
        """Features of the trunk -> what `cls` sees side by side: x and smaller maps, which are
        enlarged to its size."""
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
        """The sizes at which the heads are compared with the label of a height x width image."""
        rows, columns = ((side - 1) * self.zoom_factor // 8 + 1 for side in (height, width))
        return [(rows, columns)] * (1 + len(self.aux_scales))

    def classify(self, maps: list[Tensor]) -> Tensor:
        """`cls` on the maps, all enlarged to the size of the first, side by side.

        Stepwise does just that, to the last bit as the first edition. Fused never makes the
        enlarged maps, which is equal up to rounding and much faster (resample.py).
        """
        x, *smaller = maps
        if not self.fused:
            size = x.shape[-2:]
            return self.cls(torch.cat([x, *(upsample(small, size) for small in smaller)], dim=1))
        assert isinstance(self.cls, nn.Sequential)
        conv, *layers = self.cls
        assert isinstance(conv, nn.Conv2d)
        x = conv3x3_of_concat(conv, x, smaller)
        for layer in layers:
            x = layer(x)
        return x

    def classifier_names(self) -> list[str]:
        """Names in the state dict whose shapes depend on the number of classes."""
        return [f"{head}.4.{part}" for head in ("cls", "aux") for part in ("weight", "bias")]

    def param_groups(self) -> list[dict]:
        """The trunk at the base learning rate, all newer modules at 10 times it (`lr_scale`)."""
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
