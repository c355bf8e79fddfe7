"""The state of a training run: where it starts, and all that a checkpoint must hold to go on."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from util.config import Config, dump_config
from util.distributed import Process, unwrap
from util.distributed.device import usable_amp
from util.error import CheckpointError
from util.training.schedule import poly_lr


@dataclass
class State:
    """What a run needs to go on: all that a checkpoint holds."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    amp: str
    epoch: int = 0  # epochs done
    step: int = 0  # steps done
    step_in_epoch: int = 0  # of them, since the last whole epoch
    best_miou: float = -1.0


def start_state(
    cfg: Config,
    process: Process,
    network: nn.Module,
    groups: list[dict],
    *,
    steps_per_epoch: int,
    say: Callable[[str], None],
) -> State:
    """A network and the optimizer of its parameter groups (with `lr_scale`), before step 0."""
    optimizer = torch.optim.SGD(
        groups,
        lr=cfg.base_lr,
        momentum=cfg.momentum,
        weight_decay=cfg.weight_decay,
        fused=True,  # can skip a step on the device: see NonfiniteCheck
    )
    if cfg.momentum:  # the fused one does not fill its buffers in a first step that is left out
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                momentum = torch.zeros_like(parameter, device=process.device)
                optimizer.state[parameter]["momentum_buffer"] = momentum
    if cfg.compile:
        network.compile()
    model = process.wrap(
        network, sync_bn=cfg.sync_bn and not cfg.freeze_bn, channels_last=cfg.channels_last
    )
    amp = usable_amp(cfg.amp, process.device)
    scaler = torch.amp.GradScaler(process.device.type, enabled=amp == "fp16")
    first_step = cfg.start_epoch * steps_per_epoch
    return State(model, optimizer, scaler, amp, cfg.start_epoch, first_step)


def restore_state(
    state: State,
    cfg: Config,
    content: Mapping[str, Any],
    *,
    source: str,
    steps_per_epoch: int,
    say: Callable[[str], None],
) -> None:
    """Put the state (its network has the weights) where the content of file `source` left off.

    Raises CheckpointError. A schedule that has changed since is said.
    """
    try:
        saved, own = content["optimizer"], state.optimizer.state_dict()
        # The groups' settings are the config's: its momentum may have been changed on purpose.
        state.optimizer.load_state_dict(
            {"state": saved["state"], "param_groups": own["param_groups"]}
        )
        if saved["state"].keys() != own["state"].keys():
            raise ValueError
        state.epoch = content["epoch"]
    except (KeyError, ValueError, AttributeError):
        raise CheckpointError(
            f"{source} has no optimizer state of this network: start from its weights with "
            f"TRAIN.weight {source} instead of TRAIN.resume"
        ) from None
    state.step_in_epoch = content.get("step_in_epoch", 0)
    if state.step_in_epoch >= steps_per_epoch:
        raise CheckpointError(
            f"{source} was saved after {state.step_in_epoch} steps of an epoch, which has "
            f"{steps_per_epoch} now: go on with the same list and TRAIN.batch_size, or start "
            f"from its weights with TRAIN.weight {source}"
        )
    state.step = state.epoch * steps_per_epoch + state.step_in_epoch
    state.best_miou = content.get("best_miou", -1.0)
    if content.get("scaler"):
        state.scaler.load_state_dict(content["scaler"])
    if "lr" in content and state.epoch < cfg.epochs:
        rate = poly_lr(cfg.base_lr, state.step, cfg.epochs * steps_per_epoch, cfg.power)
        if abs(rate - content["lr"]) > 1e-9 * content["lr"]:
            say(
                f"the learning rate jumps from {content['lr']:.6g} to {rate:.6g} here: since "
                f"{source} was saved, TRAIN.epochs ({cfg.epochs} now), base_lr, power or the "
                "number of steps has changed"
            )


def checkpoint_of(state: State, cfg: Config, *, steps_per_epoch: int) -> dict[str, Any]:
    """All that a resumed run needs, in tensors, numbers and text; `lr` is that of the next step."""
    total_steps = cfg.epochs * steps_per_epoch
    return {
        "epoch": state.epoch,
        "step": state.step,
        "step_in_epoch": state.step_in_epoch,
        "seed": cfg.manual_seed,
        "state_dict": unwrap(state.model).state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "scaler": state.scaler.state_dict(),
        "best_miou": state.best_miou,
        "lr": poly_lr(cfg.base_lr, state.step, total_steps, cfg.power),
        "config": dump_config(cfg),
    }
