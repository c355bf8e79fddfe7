"""The state of a training run: how it is created, and what a checkpoint saves of it."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from util.config import Config, dump_config
from util.data.list_file import Sample
from util.distributed import Process, unwrap
from util.distributed.device import usable_amp
from util.error import RunError
from util.training.optimizer import build_optimizer
from util.training.schedule import poly_lr
from util.training.weight_file import nonfinite_entries


@dataclass
class State:
    """Everything that changes during training and is saved in checkpoints."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    amp: str
    steps_per_epoch: int
    total_steps: int
    epoch: int = 0  # completed epochs
    step_in_epoch: int = 0  # completed steps of the current epoch
    best_miou: float = -1.0

    @property
    def step(self) -> int:
        """Completed steps since the start of the run."""
        return self.epoch * self.steps_per_epoch + self.step_in_epoch

    def rate(self, cfg: Config) -> float:
        """Learning rate of the next step."""
        return poly_lr(cfg.base_lr, self.step, self.total_steps, cfg.power, cfg.warmup_steps)


def start_state(
    cfg: Config, process: Process, network: nn.Module, *, steps_per_epoch: int
) -> State:
    """Create the state before step 0: the wrapped network and its optimizer."""
    # With `fused` the loss upsamples the logits.
    network.upsamples = cfg.classifier == "stepwise"  # type: ignore[assignment]
    model = process.wrap(
        network,
        sync_bn=cfg.sync_bn and not cfg.freeze_bn,
        channels_last=cfg.channels_last,
        compile=cfg.compile,
    )
    amp = usable_amp(cfg.amp, process.device)
    return State(
        model,
        build_optimizer(cfg, unwrap(model)),
        torch.amp.GradScaler(process.device.type, enabled=amp == "fp16"),
        amp,
        steps_per_epoch,
        cfg.epochs * steps_per_epoch,
        cfg.start_epoch,
    )


def order_of(cfg: Config, samples: Sequence[Sample]) -> dict[str, Any]:
    """Return what determines the images of each step: seed, batch size, hash of the list."""
    names = "\n".join("/".join(sample.image.parts[-2:]) for sample in samples)
    digest = hashlib.sha256(names.encode("utf-8", "surrogateescape")).hexdigest()
    return {"seed": cfg.manual_seed, "batch_size": cfg.batch_size, "train_list": digest[:16]}


def checkpoint_content(state: State, cfg: Config, order: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of a checkpoint: tensors, numbers and text; `lr` is of the next step.

    Raises RunError if weights or optimizer buffers are not finite: such a state is never saved.
    """
    weights, optimizer = unwrap(state.model).state_dict(), state.optimizer.state_dict()
    buffers = {
        f"{name} {i}": value
        for i, values in optimizer["state"].items()
        for name, value in values.items()
    }
    if broken := nonfinite_entries({**weights, **buffers}):
        raise RunError(
            f"after step {state.step} {len(broken)} tensors hold infinite or NaN values "
            f"({', '.join(broken[:3])}, ...): the run has diverged, and this state is not saved; "
            f"lower TRAIN.base_lr {cfg.base_lr}, then TRAIN.resume auto continues from the "
            "previous checkpoint"
        )
    return {
        "epoch": state.epoch,
        "step": state.step,
        "step_in_epoch": state.step_in_epoch,
        **order,
        "state_dict": weights,
        "optimizer": optimizer,
        "scaler": state.scaler.state_dict(),
        "best_miou": state.best_miou,
        "lr": state.rate(cfg),
        "config": dump_config(cfg),
    }
