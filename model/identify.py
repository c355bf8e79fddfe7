"""Identifying a weight file by the names and shapes of its entries."""

import math
from collections.abc import Mapping

from torch import Tensor

from model.resnet import BACKBONES, BasicBlock, has_deep_base
from util.error import CheckpointError


def identify(state: Mapping[str, Tensor]) -> dict[str, str]:
    """Describe a state dict (without `module.` prefixes): network, backbone, stem, classes, ..."""
    layers, deep_base = count_layers(state), has_deep_base(state)
    if layers is None or deep_base is None:
        raise CheckpointError(
            "this is neither a ResNet nor a network of this project with a ResNet backbone: its "
            f"entries begin with {', '.join(list(state)[:3])}"
        )
    found = {
        "network": network_of(state),
        "backbone": f"ResNet-{layers}",
        "stem": "deep (three 3x3 convolutions)" if deep_base else "plain (one 7x7 convolution)",
    }
    if classes := classes_of(state):
        found["classes"] = str(classes)
    if "psa.attention.3.weight" in state:
        found["crop"] = _psanet_crops(state["psa.attention.3.weight"].shape[0])
    parameters = sum(
        value.numel()
        for name, value in state.items()
        if not name.endswith(("running_mean", "running_var", "num_batches_tracked"))
    )
    found["parameters"] = f"{parameters / 1e6:.2f} million"
    kinds = sorted({str(v.dtype).removeprefix("torch.") for v in state.values() if v.dim()})
    found["precision"] = ", ".join(kinds)
    return found


def count_layers(state: Mapping[str, Tensor]) -> int | None:
    """Return 18, 34, 50, 101 or 152; None if the blocks are not those of a ResNet."""
    depths = tuple(
        len({name.split(".")[1] for name in state if name.startswith(f"layer{i}.")})
        for i in (1, 2, 3, 4)
    )
    is_basic = "layer1.0.conv3.weight" not in state
    for layers, (block, known) in BACKBONES.items():
        if known == depths and (block is BasicBlock) == is_basic:
            return layers
    return None


def classes_of(state: Mapping[str, Tensor]) -> int | None:
    """Return the number of classes; None without a classifier."""
    classifier = state.get("cls.4.weight", state.get("cls.weight", state.get("fc.weight")))
    return None if classifier is None else classifier.shape[0]


def network_of(state: Mapping[str, Tensor]) -> str:
    """Return the kind of network, such as `PSPNet with 4 bins`."""
    if any(name.startswith("ppm.") for name in state):
        bins = len({name.split(".")[2] for name in state if name.startswith("ppm.features.")})
        return f"PSPNet with {bins} bins"
    if "fuse_half.fine.0.weight" in state:
        return "ICNet"
    if "psa.attention_p.3.weight" in state:
        return "PSANet, collect and distribute"
    if "psa.attention.3.weight" in state:
        return "PSANet, collect or distribute (their weights have the same shapes)"
    return "ResNet of ImageNet" if "fc.weight" in state else "ResNet without classifier"


def _psanet_crops(channels: int) -> str:
    """Describe the crops for which attention has this number of channels."""
    side = math.isqrt(channels)
    if side * side != channels:
        return f"not square: the attention has {channels} channels (mask_h * mask_w)"
    choices = []
    if side % 2:  # a mask over the whole map has an odd side
        choices.append(f"{(side - 1) // 2 * 16 + 1} (mask {side}x{side})")
    choices.append(f"{(side - 1) * 16 + 1} (compact)")
    return f"{' or '.join(choices)} with shrink_factor 2"
