"""Weight files of another kind than a key or recipe needs: the message names what would fit."""

from collections.abc import Mapping

from torch import Tensor

from model.identify import classes_of, count_layers, network_of
from model.resnet import depth_of
from util.config import Config
from util.error import CheckpointError

_ARCH_OF = {"PSPNet": "psp", "PSANet": "psa", "ICNet": "icnet"}
_IN_NETWORKS = ("layer0.0.weight", "backbone.net.")  # the trunk in networks, not in its own files


def check_backbone_file(cfg: Config, state: Mapping[str, Tensor], path: str) -> None:
    """Raise CheckpointError if TRAIN.init_weight is a trained network or another ResNet."""
    if is_network(state):
        raise CheckpointError(
            f"TRAIN.init_weight {path} is a trained {_kind(state) or 'network'}, not a backbone: "
            f"set TRAIN.weight {path} to start from all of its weights"
        )
    _check_layers(cfg, state, path)


def check_network_file(
    cfg: Config, state: Mapping[str, Tensor], path: str, *, any_classes: bool = False
) -> None:
    """Raise CheckpointError if a file is a backbone, or a network other than the recipe's.

    `any_classes` allows another number of classes.
    """
    layers = count_layers(state)
    if layers and "conv1.weight" in state and not is_network(state):
        raise CheckpointError(
            f"{path} is a ResNet-{layers} backbone, not a trained network: set it in "
            "TRAIN.init_weight, which a training starts from"
        )
    if cfg.arch not in _ARCH_OF.values():  # a user's network
        return
    arch = _ARCH_OF.get(_kind(state), cfg.arch)
    if arch != cfg.arch:
        raise CheckpointError(
            f"{path} holds {_kind(state)} weights, but TRAIN.arch is {cfg.arch}: set TRAIN.arch "
            f"{arch}, or choose another file"
        )
    if is_network(state):
        _check_layers(cfg, state, path)
    has_both = "psa.attention_p.3.weight" in state
    if arch == "psa" and "psa.attention.3.weight" in state and has_both != (cfg.psa_type == 2):
        branches, fix = ("both branches", "2") if has_both else ("one branch", "0 or 1")
        raise CheckpointError(
            f"{path} is a PSANet with {branches}, but TRAIN.psa_type is {cfg.psa_type}: set "
            f"TRAIN.psa_type {fix}, or choose another file"
        )
    classes = classes_of(state)
    if classes not in (None, cfg.classes) and not any_classes:
        raise CheckpointError(
            f"{path} has {classes} classes, but DATA.classes is {cfg.classes}: set DATA.classes "
            f"{classes}, choose another file, or train from it with TRAIN.weight {path}"
        )


def is_network(state: Mapping[str, Tensor]) -> bool:
    """Whether this is the state dict of a segmentation network."""
    return bool(_kind(state)) or any(name.startswith(_IN_NETWORKS) for name in state)


def _kind(state: Mapping[str, Tensor]) -> str:
    kind = network_of(state).partition(" ")[0].rstrip(",")
    return kind if kind in _ARCH_OF else ""


def _check_layers(cfg: Config, state: Mapping[str, Tensor], path: str) -> None:
    found, wanted = count_layers(state), depth_of(cfg)
    if found == wanted:
        return
    now = f"TRAIN.backbone is {cfg.backbone}" if cfg.backbone else f"TRAIN.layers is {cfg.layers}"
    if found and (wanted or is_network(state)):
        fix = f"TRAIN.backbone resnet{found}" if cfg.backbone else f"TRAIN.layers {found}"
        raise CheckpointError(
            f"{path} has a ResNet-{found}, but {now}: set {fix}, or choose another file"
        )
    if wanted and any(name.startswith("backbone.net.") for name in state):
        raise CheckpointError(
            f"{path} has a backbone of torchvision or timm, but {now}: set TRAIN.backbone to the "
            "one it was trained with"
        )
