"""ResNet (He et al., CVPR 2016) with configurable stride and dilation per stage."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from util.config import Config
from util.error import ConfigError


def conv3x3(in_channels: int, channels: int, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    """3x3 convolution with same padding and no bias."""
    return nn.Conv2d(
        in_channels, channels, 3, stride=stride, padding=dilation, dilation=dilation, bias=False
    )


def conv1x1(in_channels: int, channels: int, stride: int = 1) -> nn.Conv2d:
    """1x1 convolution without bias."""
    return nn.Conv2d(in_channels, channels, 1, stride=stride, bias=False)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions (ResNet-18/34): (N, C, h, w) -> (N, channels, h/stride, w/stride)."""

    expansion = 1

    def __init__(self, in_channels: int, channels: int, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.conv1 = conv3x3(in_channels, channels, stride, dilation)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = conv3x3(channels, channels, 1, dilation)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = shortcut(in_channels, channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += x if self.downsample is None else self.downsample(x)
        return self.relu(out)


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 (ResNet-50 and deeper): (N, C, h, w) -> (N, 4 channels, h/stride, w/stride).

    The 3x3 convolution has the stride and dilation.
    """

    expansion = 4

    def __init__(self, in_channels: int, channels: int, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        out_channels = channels * self.expansion
        self.conv1 = conv1x1(in_channels, channels)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = conv3x3(channels, channels, stride, dilation)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = conv1x1(channels, out_channels)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = shortcut(in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        out += x if self.downsample is None else self.downsample(x)
        return self.relu(out)


def shortcut(in_channels: int, channels: int, stride: int) -> nn.Sequential | None:
    """Projection shortcut for a block that changes size or channels, else None (identity)."""
    if stride == 1 and in_channels == channels:
        return None
    return nn.Sequential(conv1x1(in_channels, channels, stride), nn.BatchNorm2d(channels))


# layers -> (block, blocks in layer1..layer4): table 1 of the paper
BACKBONES: dict[int, tuple[type[BasicBlock] | type[Bottleneck], tuple[int, ...]]] = {
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
    152: (Bottleneck, (3, 8, 36, 3)),
}


def depth_of(cfg: Config) -> int | None:
    """Return the depth of the ResNet set by TRAIN.backbone or, if empty, TRAIN.layers.

    None if TRAIN.backbone is not a ResNet of this project. Raises ConfigError for an unknown depth.
    """
    is_layers = not cfg.backbone
    text = str(cfg.layers) if is_layers else cfg.backbone.removeprefix("resnet")
    if not is_layers and not (cfg.backbone.startswith("resnet") and text.isdigit()):
        return None
    if int(text) not in BACKBONES:
        depths = ", ".join(map(str, BACKBONES))
        name, got = ("layers", text) if is_layers else ("backbone", cfg.backbone)
        kind = "" if is_layers else "resnet and "
        raise ConfigError(f"TRAIN.{name} must be {kind}one of {depths}, got {got}")
    return int(text)


# (stride, dilation) of layer1..layer4: as in the paper, and for features at 1/8 of the input.
STRIDE_32 = ((1, 1), (2, 1), (2, 1), (2, 1))
STRIDE_8 = ((1, 1), (2, 1), (1, 2), (1, 4))


class ResNet(nn.Module):
    """ImageNet classifier, (N, 3, H, W) -> (N, classes), or feature extractor if `classes` is None.

    Args:
        layers: 18, 34, 50, 101 or 152.
        deep_base: stem of three 3x3 convolutions (64, 64, 128 channels), else the plain 7x7 one.
        stages: (stride, dilation) of layer1..layer4.
        classes: outputs of `fc`. None omits it and returns the features of layer4,
            (N, channels[3], h, w); with STRIDE_8 an input side of 8k+1 gives k+1.

    `channels` holds the output channels of layer1..layer4.
    """

    layer1: nn.Sequential
    layer2: nn.Sequential
    layer3: nn.Sequential
    layer4: nn.Sequential

    def __init__(
        self,
        layers: int,
        *,
        deep_base: bool = True,
        stages: tuple[tuple[int, int], ...] = STRIDE_32,
        classes: int | None = 1000,
    ) -> None:
        super().__init__()
        block, depths = BACKBONES[layers]
        self.deep_base = deep_base
        if deep_base:
            self.conv1 = conv3x3(3, 64, stride=2)
            self.bn1 = nn.BatchNorm2d(64)
            self.conv2 = conv3x3(64, 64)
            self.bn2 = nn.BatchNorm2d(64)
            self.conv3 = conv3x3(64, 128)
            self.bn3 = nn.BatchNorm2d(128)
        else:
            self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
            self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)

        self.channels = tuple(width * block.expansion for width in (64, 128, 256, 512))
        in_channels = 128 if deep_base else 64
        for i, (depth, (stride, dilation)) in enumerate(zip(depths, stages, strict=True)):
            width = 64 * 2**i
            blocks = [block(in_channels, width, stride, dilation)]
            in_channels = self.channels[i]
            blocks += [block(in_channels, width, 1, dilation) for _ in range(1, depth)]
            self.add_module(f"layer{i + 1}", nn.Sequential(*blocks))
        self.fc = None if classes is None else nn.Linear(self.channels[3], classes)
        init_weights(self)

    def stem(self) -> nn.Sequential:
        """The layers before layer1 as one module, `layer0` of the segmentation networks."""
        parts = [self.conv1, self.bn1, self.relu]
        if self.deep_base:
            parts += [self.conv2, self.bn2, self.relu, self.conv3, self.bn3, self.relu]
        return nn.Sequential(*parts, self.maxpool)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem()(x)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return x if self.fc is None else self.fc(x.mean(dim=(2, 3)))


def init_weights(module: nn.Module) -> None:
    """Initialise convolutions by He et al. (fan out, ReLU), BatchNorm with weight 1 and bias 0."""
    for m in module.modules():
        if isinstance(m, nn.Conv2d):
            nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")
            if m.bias is not None:
                nn.init.zeros_(m.bias)


def has_deep_base(state: Mapping[str, Tensor]) -> bool | None:
    """Whether a state dict (ImageNet or segmentation names) has the deep stem; None: no stem."""
    weight = state.get("layer0.0.weight", state.get("conv1.weight"))
    return None if weight is None else torch.as_tensor(weight).shape[-1] == 3
