"""Agreement of a recipe with the config stored in a checkpoint: equal shapes are not enough."""

import logging
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any

from model.psanet import mask_size
from util.config import NETWORK_KEYS, Config, full_name, stored_values
from util.error import CheckpointError, show

log = logging.getLogger("semseg")

_HARMLESS = ("zoom_factor", "classifier")  # size of the logits in training, order of computation
_PSA_KEYS = ("psa_type", "compact", "shrink_factor", "normalization_factor", "psa_softmax")
_MASKS = {"mask_h": "train_h", "mask_w": "train_w"}
_LABEL_KEYS = ("label_map", "ignore_ids")


def check_agreement(
    cfg: Config, content: Mapping[str, Any], *, source: str, ignored: Collection[str] = ()
) -> None:
    """Raise CheckpointError if a file was trained with another network than the recipe's.

    Keys that do not change what the network computes and those in `ignored` may differ. Files
    without a config are not checked.
    """
    before = _trained_with(cfg, content, (*NETWORK_KEYS, *_MASKS.values()), source)
    if names := [name for name in _differences(cfg, before) if name not in ignored]:
        raise CheckpointError(
            f"the recipe has {_pairs(vars(cfg), names)}, but {source} was trained with "
            f"{_pairs(vars(before), names)}: set that, or choose another file"
        )


def report_labels(cfg: Config, content: Mapping[str, Any], *, source: str) -> None:
    """Log if labels are mapped in another way than when the checkpoint was saved."""
    before = _trained_with(cfg, content, _LABEL_KEYS, source)
    for name in _LABEL_KEYS:
        was, now = getattr(before, name), getattr(cfg, name)
        if was != now:
            key = full_name(name)
            log.info(f"{key} was {_shown(was)} and is {_shown(now)} since {source} was saved")


def describe_network(content: Mapping[str, Any], *, source: str) -> str:
    """Return the keys of the network a file was trained with as overrides; '' if unknown."""
    if not isinstance(text := content.get("config"), str):
        return ""
    values = stored_values(
        text, (*NETWORK_KEYS, *_MASKS.values()), source=f"the config in {source}"
    )
    names = _keys_of(values.get("arch"))
    return _pairs(values, [name for name in names if name in values])


def _trained_with(
    cfg: Config, content: Mapping[str, Any], names: Collection[str], source: str
) -> Config:
    """Return `cfg` with the values that these keys had when the file was written."""
    text = content.get("config")
    if not isinstance(text, str):
        return cfg
    return replace(cfg, **stored_values(text, names, source=f"the config in {source}"))


def _keys_of(arch: str | None) -> list[str]:
    """Return the keys that change what a network computes."""
    unused = () if arch == "psa" else (*_PSA_KEYS, *_MASKS)
    return [name for name in NETWORK_KEYS if name not in (*_HARMLESS, *unused)]


def _differences(cfg: Config, before: Config) -> list[str]:
    """Return the keys that make the networks of two configs compute something else."""
    if cfg.arch != before.arch:
        return ["arch"]
    names = []
    if _backbone(cfg) != _backbone(before):
        names = ["layers", "backbone"] if cfg.backbone or before.backbone else ["layers"]
    special = ("layers", "backbone", "normalization_factor", *_MASKS)
    for name in _keys_of(cfg.arch):
        if name not in special and getattr(cfg, name) != getattr(before, name):
            names.append(name)
    if cfg.arch == "psa" and not {"layers", "compact", "shrink_factor"} & {*names}:
        names += _psa_differences(cfg, before)
    return names


def _psa_differences(cfg: Config, before: Config) -> list[str]:
    """Compare mask and divisor, whose defaults follow from the crop."""
    names, masks = [], [mask_size(c) for c in (cfg, before)]
    for (key, crop), now, was in zip(_MASKS.items(), *masks, strict=True):
        if now != was:
            names.append(key if getattr(cfg, key) != getattr(before, key) else crop)
    factors = [
        c.normalization_factor or height * width
        for c, (height, width) in zip((cfg, before), masks, strict=True)
    ]
    is_set = cfg.normalization_factor or before.normalization_factor
    return [*names, "normalization_factor"] if is_set and factors[0] != factors[1] else names


def _backbone(cfg: Config) -> str:
    return cfg.backbone.partition(".")[0] or f"resnet{cfg.layers}"  # timm/<name>.<weights>


def _pairs(values: Mapping[str, Any], names: Iterable[str]) -> str:
    return " ".join(f"{full_name(name)} {_shown(values[name])}" for name in names)


def _shown(value: Any) -> str:
    return "''" if value in (None, "") else show(value)
