"""Initial weights of the backbone: from a file, the library's download, or random."""

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from model.backbones import Backbone, build_backbone
from model.file_kind import check_backbone_file
from model.resnet import STRIDE_8, ResNet, depth_of, has_deep_base
from util.config import Config
from util.error import CheckpointError, ConfigError, nearest
from util.training.weight_file import load_file, load_weights, state_dict_of

PRETRAINED = "pretrained"


def build_trunk(cfg: Config, state: Mapping[str, Tensor] | None = None) -> ResNet | Backbone:
    """Build the trunk of a config with random weights.

    If TRAIN.deep_base is empty, a ResNet's stem is that of `state`, the weights to be loaded, if
    given, else deep.
    """
    layers = depth_of(cfg)
    if layers is None:
        return build_backbone(cfg.backbone)
    deep_base = cfg.deep_base
    if deep_base is None and state is not None:
        deep_base = has_deep_base(state)
    return ResNet(layers, deep_base=deep_base is not False, stages=STRIDE_8, classes=None)


def pretrained_trunk(cfg: Config) -> ResNet | Backbone:
    """Build the trunk of a config and load TRAIN.init_weight ('': random weights).

    Raises CheckpointError if the weights are missing or do not fit.
    """
    layers = depth_of(cfg)
    if layers is None:
        return _pretrained_backbone(cfg)
    path = cfg.init_weight.replace("{layers}", str(layers))
    if not path:
        return build_trunk(cfg)
    state = from_torchvision(f"resnet{layers}") if path == PRETRAINED else _read(path)
    check_backbone_file(cfg, state, path)
    check_stem(cfg, state, path)
    trunk = build_trunk(cfg, state)
    kept = {name: value for name, value in state.items() if not name.startswith("fc.")}
    load_weights(trunk, kept, source=path)
    return trunk


def _pretrained_backbone(cfg: Config) -> Backbone:
    path = cfg.init_weight
    if not path:
        return build_backbone(cfg.backbone)
    if "{layers}" in path:
        raise ConfigError(
            f"TRAIN.init_weight {path} is for ResNets, but TRAIN.backbone is {cfg.backbone}: set "
            "init_weight to pretrained (the library's download), to a weight file or to ''"
        )
    if path == PRETRAINED:
        return _downloaded(cfg.backbone)
    backbone, state = build_backbone(cfg.backbone), _read(path)
    check_backbone_file(cfg, state, path)
    load_backbone(backbone, cfg.backbone, state, source=path)
    return backbone


def load_backbone(
    backbone: Backbone, name: str, state: Mapping[str, Tensor], *, source: str
) -> None:
    """Load a library's weights for the whole network into a backbone, which is a part of it.

    All of the backbone must be covered; remaining entries must belong to the rest of the network.
    """
    own = backbone.net.state_dict()
    names = {ours: theirs for ours in own for theirs in _possible_names(ours) if theirs in state}
    used = set(names.values())
    unknown = [n for n in state if n not in used and n not in _names_of_network(name)]
    renamed = {ours: state[theirs] for ours, theirs in names.items()}
    load_weights(backbone.net, renamed | {n: state[n] for n in unknown}, source=source)


def _possible_names(name: str) -> list[str]:
    """Return possible names in the whole network for `name` in timm's feature extractor."""
    return [name, name.removeprefix("model."), re.sub(r"^([a-z]+)_(\d+)\.", r"\1.\2.", name)]


def _names_of_network(name: str) -> set[str]:
    library, _, network = name.partition("/")
    with torch.device("meta"):
        return set(_whole_network(library, network).state_dict())


def _whole_network(library: str, network: str) -> nn.Module:
    if library == "timm":
        import timm

        return timm.create_model(network)
    from torchvision import models

    return models.get_model(network, weights=None)


def _downloaded(name: str) -> Backbone:
    library, _, network = name.partition("/")
    try:
        if library == "timm":
            return build_backbone(name, pretrained=True)
        from torchvision import models

        return build_backbone(name, weights=models.get_model_weights(network).DEFAULT)
    except Exception as error:  # from the library, its hub or the network connection
        raise CheckpointError(
            f"TRAIN.init_weight pretrained: {library} could not load weights of {network} "
            f"({_first_line(error)}); download the file on a connected machine and set it in "
            "TRAIN.init_weight"
        ) from None


def from_torchvision(name: str) -> dict[str, Tensor]:
    """Download the ImageNet weights of a ResNet with torchvision."""
    from torchvision import models

    known = [n for n in models.list_models() if n.startswith("resnet") and n[6:].isdigit()]
    if name not in known:
        near = nearest(name, known)
        hint = f"; nearest: {near[0]}" if near else ""
        raise ConfigError(f"{name} is unknown, choose one of {', '.join(known)}{hint}")
    weights = models.get_model_weights(name).DEFAULT
    try:
        return weights.get_state_dict(progress=True, check_hash=True)
    except OSError as error:  # urllib's errors are OSErrors
        raise CheckpointError(
            f"torchvision could not download {weights.url}: {error}; download the file on a "
            "connected machine and give its path instead"
        ) from None


def check_stem(cfg: Config, state: Mapping[str, Tensor], path: str) -> None:
    """Raise ConfigError if TRAIN.deep_base does not match the stem of the weights."""
    deep_base = has_deep_base(state)
    if deep_base is None or cfg.deep_base is None or deep_base == cfg.deep_base:
        return
    stems = {True: "the deep stem (three 3x3 convolutions)", False: "the plain 7x7 stem"}
    raise ConfigError(
        f"TRAIN.deep_base {cfg.deep_base} asks for {stems[cfg.deep_base]}, but {path} has "
        f"{stems[deep_base]}: leave TRAIN.deep_base empty or choose another file"
    )


def _read(path: str) -> dict[str, Tensor]:
    if not Path(path).is_file():
        raise CheckpointError(
            f"TRAIN.init_weight: no file {path}{_other_files(Path(path))}; see initmodel/README.md "
            "for where to get one, or train from random weights with TRAIN.init_weight ''"
        )
    return state_dict_of(load_file(path), source=path)


def _other_files(path: Path) -> str:
    """Return ` (that folder holds ...)` if the folder has other weight files."""
    found = sorted(p.name for p in path.parent.glob("*.pth"))[:5]
    return f" (that folder holds {', '.join(found)})" if found else ""


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:200]
