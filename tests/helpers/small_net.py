"""A network with PSPNet's modules and few channels, so that a step takes milliseconds."""

from torch import Tensor, nn

from model.pspnet import PPM
from model.segmentor import Segmentor, head


class SmallNet(Segmentor):
    """Stride 8, pyramid pooling and both heads, like PSPNet: (N, 3, H, W) -> SegOutput."""

    def __init__(
        self, classes: int = 3, *, zoom_factor: int = 8, fused: bool = True, dropout: float = 0.0
    ) -> None:
        super().__init__(SmallBackbone(), zoom_factor=zoom_factor, fused=fused)
        self.ppm = PPM(32, (1, 2, 3, 6))
        self.cls = head(64, 32, classes, dropout)
        self.aux = head(32, 32, classes, dropout)

    def context(self, x: Tensor) -> list[Tensor]:
        return [x, *self.ppm(x, fused=self.fused)]


class SmallBackbone(nn.Module):
    """(N, 3, H, W) -> two maps of 32 channels at stride 8."""

    channels, side_step = (32, 32), 1

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv_bn(3, 16, stride=2),
            conv_bn(16, 16, stride=2),
            conv_bn(16, 32, stride=2),
            conv_bn(32, 32, stride=1),
        )
        self.last = conv_bn(32, 32, stride=1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        middle = self.body(x)
        return middle, self.last(middle)


def conv_bn(channels: int, out_channels: int, *, stride: int) -> nn.Sequential:
    conv = nn.Conv2d(channels, out_channels, 3, stride, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels), nn.ReLU())
