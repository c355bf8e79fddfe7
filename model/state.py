"""The state of a training run: where it starts, and all that a checkpoint must hold to go on."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from model import build_model, load_for_finetuning, load_pretrained
from util.checkpoint import load_weights, state_dict_of
from util.config import Config, dump_config
from util.error import CheckpointError
from util.precision import usable_amp
from util.runtime import Runtime, rng_state, set_rng_state, unwrap


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
    cfg: Config, runtime: Runtime, resume: str, content: dict[str, Any], *, steps_per_epoch: int
) -> State:
    """Model and optimizer at the start, or where the `content` of the file `resume` left off."""
    if resume:
        weights = state_dict_of(content, source=resume)
        network = build_model(cfg, state=weights)
        load_weights(network, weights, source=resume)
    elif cfg.weight:
        network, skipped = load_for_finetuning(cfg)
        if skipped and runtime.is_main:
            print(f"TRAIN.weight has another number of classes: {', '.join(skipped)} start random")
    else:
        network = load_pretrained(cfg)
    model = runtime.wrap(network, sync_bn=cfg.sync_bn, channels_last=cfg.channels_last)
    optimizer = torch.optim.SGD(
        unwrap(model).param_groups(),
        lr=cfg.base_lr,
        momentum=cfg.momentum,
        weight_decay=cfg.weight_decay,
    )
    amp = usable_amp(cfg.amp, runtime.device, say=print)
    scaler = torch.amp.GradScaler(runtime.device.type, enabled=amp == "fp16")
    first_step = cfg.start_epoch * steps_per_epoch
    state = State(model, optimizer, scaler, amp, cfg.start_epoch, first_step)
    if resume:
        try:
            optimizer.load_state_dict(content["optimizer"])
            state.epoch = content["epoch"]
        except (KeyError, ValueError):
            raise CheckpointError(
                f"{resume} has no optimizer state of this network: start from its weights with "
                f"TRAIN.weight {resume} instead of TRAIN.resume"
            ) from None
        state.step_in_epoch = content.get("step_in_epoch", 0)
        if state.step_in_epoch >= steps_per_epoch:
            raise CheckpointError(
                f"{resume} was saved after {state.step_in_epoch} steps of an epoch, which has "
                f"{steps_per_epoch} now: go on with the same list and TRAIN.batch_size, or start "
                f"from its weights with TRAIN.weight {resume}"
            )
        state.step = state.epoch * steps_per_epoch + state.step_in_epoch
        state.best_miou = content.get("best_miou", -1.0)
        if content.get("scaler"):
            scaler.load_state_dict(content["scaler"])
        if "rng" in content:
            set_rng_state(content["rng"])
    return state


def checkpoint_of(state: State, cfg: Config) -> dict[str, Any]:
    """All that a resumed run needs, in tensors, numbers and text."""
    return {
        "epoch": state.epoch,
        "step": state.step,
        "step_in_epoch": state.step_in_epoch,
        "seed": cfg.manual_seed,
        "state_dict": unwrap(state.model).state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "scaler": state.scaler.state_dict(),
        "best_miou": state.best_miou,
        "rng": rng_state(),
        "config": dump_config(cfg),
    }
