"""A network of PSPNet's parts with few channels, so that a step takes milliseconds."""

from types import SimpleNamespace

from torch import Tensor, nn

from model.pspnet import PPM
from model.segmentor import Segmentor, head


class SmallNet(Segmentor):
    """Stride 8 as PSPNet, its pyramid and both heads: (N, 3, H, W) -> SegOutput."""

    def __init__(
        self, classes: int = 3, *, zoom_factor: int = 8, fused: bool = True, dropout: float = 0.0
    ) -> None:
        trunk = SimpleNamespace(
            stem=lambda: conv_bn(3, 16, stride=2),
            layer1=conv_bn(16, 16, stride=2),
            layer2=conv_bn(16, 32, stride=2),
            layer3=conv_bn(32, 32, stride=1),
            layer4=conv_bn(32, 32, stride=1),
            channels=(16, 16, 32, 32, 32),
        )
        super().__init__(trunk, zoom_factor=zoom_factor, fused=fused)
        self.ppm = PPM(32, (1, 2, 3, 6))
        self.cls = head(64, 32, classes, dropout)
        self.aux = head(32, 32, classes, dropout)

    def context(self, x: Tensor) -> list[Tensor]:
        return [x, *self.ppm(x, fused=self.fused)]


def conv_bn(channels: int, out_channels: int, *, stride: int) -> nn.Sequential:
    conv = nn.Conv2d(channels, out_channels, 3, stride, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels), nn.ReLU())
