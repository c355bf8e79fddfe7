"""Backbones of torchvision and timm with one interface: image -> features of the last two stages.

Properties of a backbone are detected rather than listed: it is built on the meta device to find out
which arguments for dense features it supports, what it returns and which image sizes it accepts.
"""

import functools
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from util.error import ConfigError, nearest, show

LIBRARIES = ("torchvision", "timm")
# Arguments for a finer stride or for any image size, best first.
OPTIONS: dict[str, tuple[dict[str, Any], ...]] = {
    "torchvision": ({"dilated": True}, {"replace_stride_with_dilation": [False, True, True]}, {}),
    "timm": (
        {"output_stride": 8},
        {"output_stride": 16},
        {"dynamic_img_size": True, "dynamic_img_pad": True},
        {"strict_img_size": False},
        {},
    ),
}
STAGES = (  # last two stages of torchvision's networks that have no `features`
    ("layer3", "layer4"),
    ("trunk_output.block3", "trunk_output.block4"),
    ("stage3", "stage4"),
)
STEPS = (1, 2, 4, 8, 14, 16, 32, 64)  # candidates: image sides must be multiples of one of these
BLOCK_STAGE = 3  # in a transformer of equal blocks the last third counts as the last stage


@dataclass(frozen=True)
class Traits:
    """Detected properties of a backbone."""

    name: str
    options: dict[str, Any]  # arguments of its builder
    stages: tuple  # names or numbers of the last two stages
    channels: tuple[int, int]  # of these stages
    is_nhwc: bool  # whether features are NHWC
    step: int  # image sides must be multiples of this
    unused: tuple[str, ...] = ()  # parameters that the features do not depend on

    def feature_size(self, height: int, width: int) -> tuple[int, int]:
        """Return height and width of the last features, from a run on the meta device."""
        net = without_memory(lambda: _build(self.name, self.options, self.stages))
        last = Backbone(net, self)(_zeros(net, height, width))[1]
        return last.shape[2], last.shape[3]


class Backbone(nn.Module):
    """(N, 3, H, W) -> features of the last two stages, NCHW each."""

    def __init__(self, net: nn.Module, traits: Traits) -> None:
        super().__init__()
        self.net, self.channels, self.side_step = net, traits.channels, traits.step
        self._is_nhwc = traits.is_nhwc
        for name in traits.unused:  # DistributedDataParallel waits for the gradients of all others
            net.get_parameter(name).requires_grad_(False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        middle, last = _outputs(self.net, x)
        if self._is_nhwc:
            return middle.permute(0, 3, 1, 2), last.permute(0, 3, 1, 2)
        return middle, last


def build_backbone(name: str, **pretrained: Any) -> Backbone:
    """Build the backbone `torchvision/<name>` or `timm/<name>`.

    Weights are random unless `pretrained`, which is passed to the library, says otherwise. Raises
    ConfigError if the backbone does not exist or cannot be used.
    """
    traits = traits_of(name)
    return Backbone(_build(name, traits.options, traits.stages, **pretrained), traits)


@functools.lru_cache(maxsize=8)
def traits_of(name: str) -> Traits:
    """Detect the properties of a backbone. Raises ConfigError if it cannot be used."""
    check_name(name)
    problem = "its stages cannot be identified"
    for options in OPTIONS[name.partition("/")[0]]:
        try:
            stages = _stages(name, options)
            net = without_memory(functools.partial(_build, name, options, stages))
        except (TypeError, NotImplementedError, AssertionError, AttributeError, ValueError):
            continue  # the builder does not have these arguments, or there are no stages
        for step in STEPS:
            size = (
                step * (96 // step + 1),
                step * (128 // step + 1),
            )  # not multiples of a larger step
            try:
                outputs = _outputs(net, _zeros(net, *size))
            except Exception as error:  # libraries raise all sorts of errors for sizes they reject
                problem = str(error).partition("\n")[0]
                continue
            is_nhwc = outputs[1].shape[1] < outputs[1].shape[3]
            axis = 3 if is_nhwc else 1
            channels = outputs[0].shape[axis], outputs[1].shape[axis]
            return Traits(name, options, stages, channels, is_nhwc, step, _unused(net, outputs))
    raise ConfigError(
        f"TRAIN.backbone {name} cannot be used: {problem}; choose one that accepts images of any "
        "size (model/README.md lists tested families)"
    )


def check_name(name: str) -> None:
    """Raise ConfigError unless the library is installed and has such a network."""
    library, _, network = name.partition("/")
    if library not in LIBRARIES or not network:
        raise ConfigError(
            "TRAIN.backbone must be resnet18, 34, 50, 101 or 152, torchvision/<name> or "
            f"timm/<name>, got {show(name)}"
        )
    known = _known(library)
    if network.partition(".")[0] not in known:  # timm: name.tag, where the tag selects weights
        near = nearest(network, known)
        hint = f"; nearest: {library}/{near[0]}" if near else ""
        raise ConfigError(f"TRAIN.backbone: {library} has no network {show(network)}{hint}")


def _known(library: str) -> list[str]:
    if library == "torchvision":
        from torchvision import models

        return models.list_models(module=models)
    try:
        import timm
    except ImportError:
        raise ConfigError(
            "TRAIN.backbone timm/... needs the package timm: pip install -r "
            "requirements-backbones.txt"
        ) from None
    return timm.list_models()


def _stages(name: str, options: dict[str, Any]) -> tuple:
    """Return the last two stages: module names for torchvision, numbers for timm."""
    library, _, network = name.partition("/")
    if library == "timm":
        import timm

        net = without_memory(lambda: timm.create_model(network, features_only=True, **options))
        kinds = [(f["num_chs"], f["reduction"]) for f in net.feature_info.info]
        if len(set(kinds)) == 1:  # blocks without stages
            return (-1 - max(1, len(kinds) // BLOCK_STAGE), -1)
        return (-2, -1)
    from torchvision import models

    net = without_memory(lambda: models.get_model(network, weights=None)).eval()
    names = dict(net.named_modules())
    for stages in STAGES:
        if set(stages) <= set(names):
            return stages
    x, heights = _zeros(net, 97, 131), []
    for module in net.features:
        x = module(x)
        heights.append(min(x.shape[1:3]) if x.shape[3] > x.shape[1] else x.shape[2])
    before = max(i for i, height in enumerate(heights) if height > heights[-1])
    return f"features.{before}", f"features.{len(heights) - 1}"


def _build(name: str, options: dict[str, Any], stages: tuple, **pretrained: Any) -> nn.Module:
    library, _, network = name.partition("/")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if library == "timm":
            import timm

            return timm.create_model(
                network, features_only=True, out_indices=stages, **options, **pretrained
            )
        from torchvision import models
        from torchvision.models.feature_extraction import create_feature_extractor

        net = models.get_model(network, weights=pretrained.get("weights"), **options)
        return create_feature_extractor(net, dict(zip(stages, ("middle", "last"), strict=True)))


def _outputs(net: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    features = net(x)
    middle, last = features.values() if isinstance(features, dict) else features
    return middle, last


def without_memory(build: Callable[[], Any]) -> Any:
    """Build a network on the meta device, or on the CPU if its builder needs real values."""
    try:
        with torch.device("meta"), torch.no_grad():
            return build().eval()
    except (NotImplementedError, RuntimeError) as error:
        if "meta" not in str(error).lower():
            raise
    return build().eval()


def _unused(net: nn.Module, outputs: tuple[Tensor, Tensor]) -> tuple[str, ...]:
    """Return the names of the parameters that the outputs do not depend on; () if unknown."""
    names, parameters = zip(*net.named_parameters(), strict=True)
    total = outputs[0].sum() + outputs[1].sum()
    try:
        gradients = torch.autograd.grad(total, parameters, allow_unused=True)
    except RuntimeError:  # an operator without a backward pass on the meta device
        return ()
    return tuple(name for name, g in zip(names, gradients, strict=True) if g is None)


@torch.no_grad()
def _zeros(net: nn.Module, height: int, width: int) -> Tensor:
    return torch.zeros(1, 3, height, width, device=next(net.parameters()).device)
