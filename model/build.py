"""Building networks by name and loading their weights, from a config or a checkpoint.

To add a network, add a file to this folder and a row to ARCHS.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model.activation_checkpointing import checkpoint_activations
from model.agreement import check_agreement, report_labels
from model.file_kind import check_network_file
from model.icnet import ICNet
from model.pretrained import build_trunk, check_stem, pretrained_trunk
from model.psanet import PSANet
from model.pspnet import PSPNet
from model.segmentor import Segmentor
from util.config import Config, load_config, restore_config
from util.distributed.device import single_device, usable_amp
from util.error import CheckpointError, ConfigError, nearest, show
from util.inference import SlidingPredictor, build_predictor
from util.training.weight_file import load_file, load_weights, state_dict_of

log = logging.getLogger("semseg")

ARCHS: dict[str, type[Segmentor]] = {"psp": PSPNet, "psa": PSANet, "icnet": ICNet}


def check_network(
    cfg: Config, *, is_test: bool = False, batch_norm_images: int | None = None
) -> None:
    """Raise ConfigError if the network of TRAIN.arch cannot be trained or tested as configured.

    `batch_norm_images` is the number of images in each BatchNorm statistic, if known.
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


def backbone_name(cfg: Config) -> str:
    """Return the name of the backbone, such as `resnet50`."""
    return cfg.backbone or f"resnet{cfg.layers}"


def build_model(cfg: Config, *, state: Mapping[str, Tensor] | None = None) -> Segmentor:
    """Build the network of a config with random weights.

    If TRAIN.deep_base is empty, the stem is that of `state`, the weights to be loaded, if given,
    else deep.
    """
    return _network_class(cfg).from_config(cfg, build_trunk(cfg, state))


def load_pretrained(cfg: Config) -> Segmentor:
    """Build the network of a config and load TRAIN.init_weight into its backbone.

    The context module and the heads start from random weights.
    """
    return _network_class(cfg).from_config(cfg, pretrained_trunk(cfg))


def start_network(
    cfg: Config, resume: str = "", content: Mapping[str, Any] | None = None
) -> Segmentor:
    """Build the network to train, with weights from the resumed checkpoint, else TRAIN.weight, else
    TRAIN.init_weight.

    Raises CheckpointError if the weights do not fit.
    """
    if content:
        network = _build_with_weights(cfg, content, source=resume)
        report_labels(cfg, content, source=resume)
    elif cfg.weight:
        network, skipped = load_for_finetuning(cfg)
        if skipped:
            log.info(
                f"TRAIN.weight has another number of classes: {', '.join(skipped)} start from "
                "random weights"
            )
    else:
        network = load_pretrained(cfg)
    if cfg.activation_checkpointing:
        checkpoint_activations(network)
    return network


def load_trained(cfg: Config, path: str | Path) -> Segmentor:
    """Build the network of a config and load all weights of a segmentation checkpoint.

    Raises CheckpointError with a report if names or shapes do not match, or if the file's own
    config describes another network.
    """
    return _build_with_weights(cfg, load_file(path), source=str(path))


def _build_with_weights(cfg: Config, content: Mapping[str, Any], *, source: str) -> Segmentor:
    check_agreement(cfg, content, source=source)
    state = state_dict_of(content, source=source)
    check_network_file(cfg, state, source)
    check_stem(cfg, state, source)
    network = build_model(cfg, state=state)
    load_weights(network, state, source=source)
    return network


def load_for_finetuning(cfg: Config) -> tuple[Segmentor, list[str]]:
    """Build the network of a config with TRAIN.weight; also return the names left random.

    These are the classifiers if the number of classes differs; everything else must match.
    """
    content = load_file(cfg.weight)
    check_agreement(cfg, content, source=cfg.weight, ignored=["classes"])
    state = state_dict_of(content, source=cfg.weight)
    check_network_file(cfg, state, cfg.weight, any_classes=True)
    check_stem(cfg, state, cfg.weight)
    network = build_model(cfg, state=state)
    own, names = network.state_dict(), network.classifier_names()
    skipped = [n for n in names if n in state and state[n].shape != own[n].shape]
    kept = {name: value for name, value in state.items() if name not in skipped}
    load_weights(network, kept, source=cfg.weight, may_miss=lambda name: name in skipped)
    return network, skipped


def load_predictor(
    checkpoint: str | Path,
    *,
    config: str | Path | None = None,
    overrides: Sequence[str] = (),
    device: str | torch.device | None = None,
) -> SlidingPredictor:
    """Load a trained network for prediction: `load_predictor("best.pth").predict(image)`.

    Uses the config stored in the checkpoint, or the file `config`; `overrides` change keys as on
    the command line, such as `["scales", "[0.75, 1.0, 1.25]"]`. The device defaults to
    TEST.test_gpu. Raises UserError.
    """
    content = load_file(checkpoint)
    if config is not None:
        cfg = load_config(config, overrides)
    elif isinstance(text := content.get("config"), str):
        cfg = restore_config(text, overrides, source=f"the config in {checkpoint}")
    else:
        raise CheckpointError(
            f"{checkpoint} holds no config, like files of other programs and versions: give the "
            "one it was trained with, config='config/<dataset>/<name>.yaml'"
        )
    check_network(cfg, is_test=True)
    network = _build_with_weights(cfg, content, source=str(checkpoint))
    device = single_device(cfg.test_gpu) if device is None else torch.device(device)
    return build_predictor(cfg, network, device=device, amp=usable_amp(cfg.test_amp, device))
