"""The state of a training run: where it starts, and all that a checkpoint must hold to continue."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from util.config import Config, dump_config
from util.distributed import Process, unwrap
from util.distributed.device import usable_amp
from util.error import CheckpointError
from util.training.checkpoint import Checkpoint, find_resume
from util.training.schedule import poly_lr
from util.training.seed import choose_seed
from util.training.weight_file import load_file

log = logging.getLogger("semseg")


@dataclass
class State:
    """What changes while a run trains: all that a checkpoint holds."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    amp: str
    steps_per_epoch: int
    total_steps: int
    epoch: int = 0  # epochs done
    step_in_epoch: int = 0  # steps done since
    best_miou: float = -1.0

    @property
    def step(self) -> int:
        """Steps done since the start of the run."""
        return self.epoch * self.steps_per_epoch + self.step_in_epoch


def read_resume(cfg: Config, process: Process) -> tuple[Config, Checkpoint | None]:
    """The checkpoint to continue from, the same in all processes, and the config with its seed.

    Where TRAIN.manual_seed is empty it becomes the checkpoint's, in a new run a fresh one.
    """
    found = find_resume(cfg.resume, cfg.save_path) if process.is_main else None
    path = process.broadcast(found.path if found else "")
    if path and found is None:
        found = Checkpoint(path, load_file(path))
    if cfg.manual_seed is None:
        seed = found.content.get("seed", choose_seed()) if found else choose_seed()
        cfg = replace(cfg, manual_seed=process.broadcast(seed))
    return cfg, found


def start_state(
    cfg: Config, process: Process, network: nn.Module, *, steps_per_epoch: int
) -> State:
    """A network (its `param_groups()` have an `lr_scale`) and its optimizer before step 0."""
    optimizer = torch.optim.SGD(
        network.param_groups(),
        lr=cfg.base_lr,
        momentum=cfg.momentum,
        weight_decay=cfg.weight_decay,
        fused=True,  # can leave a step out on the device: see nonfinite.py
    )
    if cfg.momentum:  # the fused one does not fill its buffers in a first step that is left out
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                momentum = torch.zeros_like(parameter, device=process.device)
                optimizer.state[parameter]["momentum_buffer"] = momentum
    network.upsamples = False  # the loss enlarges the logits
    if cfg.compile:
        network.compile()
    model = process.wrap(
        network, sync_bn=cfg.sync_bn and not cfg.freeze_bn, channels_last=cfg.channels_last
    )
    amp = usable_amp(cfg.amp, process.device)
    return State(
        model,
        optimizer,
        torch.amp.GradScaler(process.device.type, enabled=amp == "fp16"),
        amp,
        steps_per_epoch,
        cfg.epochs * steps_per_epoch,
        cfg.start_epoch,
    )


def restore_state(state: State, cfg: Config, checkpoint: Checkpoint) -> None:
    """Continue where the checkpoint was saved; the state's network has its weights already.

    Raises CheckpointError. A schedule that has changed since is logged.
    """
    source, content = checkpoint
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
    if state.step_in_epoch >= state.steps_per_epoch:
        raise CheckpointError(
            f"{source} was saved after {state.step_in_epoch} steps of an epoch, which has "
            f"{state.steps_per_epoch} now: resume with the same list and TRAIN.batch_size, or "
            f"start from its weights with TRAIN.weight {source}"
        )
    state.best_miou = content.get("best_miou", -1.0)
    if content.get("scaler"):
        state.scaler.load_state_dict(content["scaler"])
    if "lr" in content and state.epoch < cfg.epochs:
        rate = poly_lr(cfg.base_lr, state.step, state.total_steps, cfg.power)
        if abs(rate - content["lr"]) > 1e-9 * content["lr"]:
            log.info(
                f"the learning rate jumps from {content['lr']:.6g} to {rate:.6g} here: since "
                f"{source} was saved, TRAIN.epochs ({cfg.epochs} now), base_lr, power or the "
                "number of steps has changed"
            )


def checkpoint_content(state: State, cfg: Config) -> Mapping[str, Any]:
    """All that a resumed run needs, in tensors, numbers and text; `lr` is that of the next step."""
    return {
        "epoch": state.epoch,
        "step": state.step,
        "step_in_epoch": state.step_in_epoch,
        "seed": cfg.manual_seed,
        "state_dict": unwrap(state.model).state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "scaler": state.scaler.state_dict(),
        "best_miou": state.best_miou,
        "lr": poly_lr(cfg.base_lr, state.step, state.total_steps, cfg.power),
        "config": dump_config(cfg),
    }
