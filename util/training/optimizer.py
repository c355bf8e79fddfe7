"""Building the optimizer, and restoring its state from a checkpoint."""

import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from util.config import Config
from util.error import CheckpointError

log = logging.getLogger("semseg")

# State tensors per parameter.
BUFFERS = {"sgd": ("momentum_buffer",), "adamw": ("step", "exp_avg", "exp_avg_sq")}


def build_optimizer(cfg: Config, network: nn.Module) -> torch.optim.Optimizer:
    """Build the optimizer from the network's `param_groups()`.

    Groups may set `lr_scale` and `weight_decay`. Move the network to its device and memory layout
    first. The optimizers are fused because those can skip a step on the device (nonfinite.py).
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
    if cfg.momentum:  # SGD would not create its buffers if the very first step is skipped
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
    """Load the state tensors of a checkpoint, after checking all of them.

    Hyper-parameters come from the config, not the checkpoint. Tensors are converted to the
    memory layout of their parameters. Raises CheckpointError.
    """
    saved = content.get("optimizer")
    state = saved.get("state") if isinstance(saved, dict) and saved.get("param_groups") else None
    parameters = _parameters(optimizer)
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    try:
        if not isinstance(state, dict):
            raise _StateMismatchError("no optimizer state")
        if cfg.optimizer == "sgd" and not (cfg.momentum and state):
            if cfg.momentum:
                log.info(f"{source} was saved without momentum, which starts at 0")
            return
        if set(state) != set(range(len(parameters))):
            raise _StateMismatchError(
                f"no optimizer state for this network's {len(parameters)} parameters"
            )
        weights = dict(content.get("state_dict", {}))
        found = {
            i: {
                buffer: _fix_layout(value, weights.get(names[id(parameter)]))
                for buffer, value in _checked(
                    state[i], cfg.optimizer, parameter, names[id(parameter)]
                ).items()
            }
            for i, parameter in enumerate(parameters)
        }
    except _StateMismatchError as error:
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


class _StateMismatchError(ValueError):
    """The checkpoint's optimizer state does not fit; the message completes `<file> has ...`."""


def _checked(buffers: Any, kind: str, parameter: Tensor, name: str) -> dict[str, Tensor]:
    found = set(buffers) if isinstance(buffers, dict) else set()
    if found != set(BUFFERS[kind]):
        other = next((k for k, known in BUFFERS.items() if set(known) == found), "unknown")
        raise _StateMismatchError(
            f"the state of another optimizer ({other}) than TRAIN.optimizer {kind}"
        )
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
            raise _StateMismatchError(
                f"a {buffer} of {name} that is not finite and of shape {shape}"
            )
    return buffers


def _fix_layout(buffer: Tensor, weight: Any) -> Tensor:
    """Convert a buffer of old checkpoints, stored in the weight's memory order but not strides."""
    if not isinstance(weight, Tensor) or weight.shape != buffer.shape:
        return buffer
    is_older = weight.dim() == 4 and not weight.is_contiguous() and buffer.is_contiguous()
    if is_older and weight.is_contiguous(memory_format=torch.channels_last):
        return buffer.as_strided(weight.shape, weight.stride())
    return buffer


def _parameters(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
