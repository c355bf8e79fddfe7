"""The optimizers by name, and their buffers (momentum) in a checkpoint."""

import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from util.config import Config
from util.error import CheckpointError

log = logging.getLogger("semseg")

# The tensors that each keeps for a parameter.
BUFFERS = {"sgd": ("momentum_buffer",), "adamw": ("step", "exp_avg", "exp_avg_sq")}


def build_optimizer(cfg: Config, network: nn.Module) -> torch.optim.Optimizer:
    """The optimizer of the network's `param_groups()`, which may set `lr_scale`, `weight_decay`.

    The network must be on its device in its memory layout: buffers take over both. Fused
    optimizers can leave a step out on the device (nonfinite.py).
    """
    groups = network.param_groups()  # type: ignore[operator] # of a network, not of any module
    if cfg.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=cfg.base_lr, weight_decay=cfg.weight_decay, fused=True)
    optimizer = torch.optim.SGD(
        groups,
        lr=cfg.base_lr,
        momentum=cfg.momentum,
        weight_decay=cfg.weight_decay,
        fused=True,
    )
    if cfg.momentum:  # it would not fill its buffers in a first step that is left out
        for parameter in _parameters(optimizer):
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def restore_optimizer(
    optimizer: torch.optim.Optimizer,
    cfg: Config,
    network: nn.Module,
    content: Mapping[str, Any],
    *,
    source: str,
) -> None:
    """Take over the buffers of a checkpoint's content; all of them are checked first.

    The groups' settings are the config's. Buffers come into the parameters' memory layout.
    Raises CheckpointError.
    """
    saved = content.get("optimizer")
    state = saved.get("state") if isinstance(saved, dict) and saved.get("param_groups") else None
    parameters = _parameters(optimizer)
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    try:
        if not isinstance(state, dict):
            raise _UnfitError("no optimizer state")
        if cfg.optimizer == "sgd" and not (cfg.momentum and state):
            if cfg.momentum:
                log.info(f"{source} was saved without momentum, which starts at 0")
            return
        if set(state) != set(range(len(parameters))):
            raise _UnfitError(f"no optimizer state for this network's {len(parameters)} parameters")
        weights = dict(content.get("state_dict", {}))
        found = {
            i: {
                buffer: _as_laid_out(value, weights.get(names[id(parameter)]))
                for buffer, value in _checked(
                    state[i], cfg.optimizer, parameter, names[id(parameter)]
                ).items()
            }
            for i, parameter in enumerate(parameters)
        }
    except _UnfitError as error:
        raise CheckpointError(
            f"{source} has {error}: start from its weights with TRAIN.weight {source} instead of "
            "TRAIN.resume"
        ) from None
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": found, "param_groups": groups})
    for parameter in parameters:
        buffers = optimizer.state[parameter]
        for name, value in buffers.items():
            if value.shape == parameter.shape:
                buffers[name] = torch.empty_like(parameter).copy_(value)


class _UnfitError(ValueError):
    """What a checkpoint has instead of the optimizer state that is needed."""


def _checked(buffers: Any, kind: str, parameter: Tensor, name: str) -> dict[str, Tensor]:
    found = set(buffers) if isinstance(buffers, dict) else set()
    if found != set(BUFFERS[kind]):
        other = next((k for k, known in BUFFERS.items() if set(known) == found), "no known one")
        raise _UnfitError(f"the state of another optimizer ({other}) than TRAIN.optimizer {kind}")
    for buffer, value in buffers.items():
        shape = () if buffer == "step" else tuple(parameter.shape)
        if (
            not isinstance(value, Tensor)
            or value.layout != torch.strided
            or value.is_meta
            or not value.is_floating_point()
            or tuple(value.shape) != shape
            or not value.isfinite().all()
        ):
            raise _UnfitError(f"a {buffer} of {name} that is no {shape} of finite numbers")
    return buffers


def _as_laid_out(buffer: Tensor, weight: Any) -> Tensor:
    """The first edition stored buffers in the order of the weight's memory, under other strides."""
    if not isinstance(weight, Tensor) or weight.shape != buffer.shape:
        return buffer
    is_older = weight.dim() == 4 and not weight.is_contiguous() and buffer.is_contiguous()
    if is_older and weight.is_contiguous(memory_format=torch.channels_last):
        return buffer.as_strided(weight.shape, weight.stride())
    return buffer


def _parameters(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
