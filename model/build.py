"""The networks by name, and how each is built and filled from a config.

A new network or backbone is one row in ARCHS or resnet.BACKBONES.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from model.activation_checkpointing import checkpoint_activations
from model.psanet import PSANet
from model.pspnet import PSPNet
from model.resnet import BACKBONES, has_deep_base, trunk_names
from model.segmentor import Segmentor, SegOutput
from util.config import Config
from util.error import CheckpointError, ConfigError, nearest, show
from util.training.weight_file import load_file, load_weights, state_dict_of

log = logging.getLogger("semseg")

__all__ = [
    "ARCHS",
    "BACKBONES",
    "SegOutput",
    "Segmentor",
    "build_model",
    "check_network",
    "load_trained",
    "start_network",
]


ARCHS: dict[str, type[Segmentor]] = {"psp": PSPNet, "psa": PSANet}


# The layers whose shape depends on the number of classes.
CLASSIFIER = ("cls.4.weight", "cls.4.bias", "aux.4.weight", "aux.4.bias")


def check_network(
    cfg: Config, *, is_test: bool = False, batch_norm_images: int | None = None
) -> None:
    """Raise ConfigError unless the network of TRAIN.arch can be trained (tested) so.

    `batch_norm_images`: how many images BatchNorm averages over, where that is known.
    """
    _network_class(cfg).check_config(cfg, is_test=is_test, batch_norm_images=batch_norm_images)


def _network_class(cfg: Config) -> type[Segmentor]:
    if cfg.arch not in ARCHS:
        near = nearest(cfg.arch, list(ARCHS))
        hint = f"; nearest: {near[0]}" if near else ""
        raise ConfigError(
            f"TRAIN.arch must be one of {', '.join(ARCHS)}, got {show(cfg.arch)}{hint}"
        )
    return ARCHS[cfg.arch]


def build_model(cfg: Config, *, state: dict[str, Tensor] | None = None) -> Segmentor:
    """The network of a config with random weights, its stem as TRAIN.deep_base says.

    Where that is empty, the stem is the one of `state`, the weights to be loaded; else deep.
    """
    deep_base = cfg.deep_base
    if deep_base is None:
        deep_base = None if state is None else has_deep_base(state)
    return _network_class(cfg).from_config(cfg, deep_base=deep_base is not False)


def start_network(cfg: Config, resume: str, content: Mapping[str, Any]) -> Segmentor:
    """The network before training: of the resumed file's content, of TRAIN.weight, else pretrained.

    Raises CheckpointError when the weights do not fit.
    """
    if resume:
        weights = state_dict_of(content, source=resume)
        network = build_model(cfg, state=weights)
        load_weights(network, weights, source=resume)
    elif cfg.weight:
        network, skipped = load_for_finetuning(cfg)
        if skipped:
            names = ", ".join(skipped)
            log.info(f"TRAIN.weight has another number of classes: {names} start random")
    else:
        network = load_pretrained(cfg)
    if cfg.activation_checkpointing:
        checkpoint_activations(network)
    return network


def load_trained(cfg: Config, path: str | Path) -> Segmentor:
    """The network of a config with the weights of a segmentation checkpoint, all of them.

    Raises CheckpointError with a report when names or shapes do not fit.
    """
    state = state_dict_of(load_file(path), source=str(path))
    _check_stem(cfg, state, str(path))
    model = build_model(cfg, state=state)
    load_weights(model, state, source=str(path))
    return model


def load_for_finetuning(cfg: Config) -> tuple[Segmentor, list[str]]:
    """The network of a config with the weights of TRAIN.weight, and the names left random.

    These are the classifier's, if the file has another number of classes; all else must fit.
    """
    state = state_dict_of(load_file(cfg.weight), source=cfg.weight)
    _check_stem(cfg, state, cfg.weight)
    model = build_model(cfg, state=state)
    own = model.state_dict()
    skipped = [n for n in CLASSIFIER if n in state and n in own and state[n].shape != own[n].shape]
    kept = {name: value for name, value in state.items() if name not in skipped}
    load_weights(model, kept, source=cfg.weight, may_miss=lambda name: name in skipped)
    return model, skipped


def load_pretrained(cfg: Config) -> Segmentor:
    """The network of a config, its trunk with the ImageNet weights of TRAIN.init_weight.

    '' leaves all weights random. The context module and the heads always start random.
    """
    path = cfg.init_weight.replace("{layers}", str(cfg.layers))
    if not path:
        return build_model(cfg)
    if not Path(path).is_file():
        raise CheckpointError(
            f"TRAIN.init_weight: no file {path}{_others(Path(path))}; initmodel/README.md says "
            "where to get one, or train from random weights with TRAIN.init_weight ''"
        )
    state = state_dict_of(load_file(path), source=path)
    _check_stem(cfg, state, path)
    model = build_model(cfg, state=state)
    trunk = trunk_names(state)
    load_weights(model, trunk, source=path, may_miss=lambda name: not name.startswith("layer"))
    return model


def _others(path: Path) -> str:
    """` (that folder holds ...)` when there are weight files to mistake for the one asked for."""
    found = sorted(p.name for p in path.parent.glob("*.pth"))[:5]
    return f" (that folder holds {', '.join(found)})" if found else ""


def _check_stem(cfg: Config, state: dict[str, Tensor], path: str) -> None:
    deep_base = has_deep_base(state)
    if deep_base is None or cfg.deep_base is None or deep_base == cfg.deep_base:
        return
    stems = {True: "the deep stem (three 3x3 convolutions)", False: "the plain 7x7 stem"}
    raise ConfigError(
        f"TRAIN.deep_base {cfg.deep_base} asks for {stems[cfg.deep_base]}, but {path} has "
        f"{stems[deep_base]}: leave TRAIN.deep_base empty or choose another file"
    )
