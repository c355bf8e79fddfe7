"""One step of training: forward, loss, backward, update; the same on any number of processes."""

from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from util.config import Config
from util.distributed import Process
from util.distributed.device import autocast
from util.error import ConfigError
from util.training.loss import SegmentationLoss, pick_labels
from util.training.nonfinite import NonfiniteCheck, Statistics
from util.training.schedule import poly_lr
from util.training.seed import seed_step
from util.training.state import State


@dataclass(frozen=True)
class StepResult:
    """`losses` (3,): this process's shares of total, main, aux, zeros for a step left out; its
    batch's pred and label (N, h, w); `taken`: 1.0, or 0.0 for a step left out; `lr`: its rate."""

    losses: Tensor
    pred: Tensor
    label: Tensor
    taken: Tensor
    lr: float


def check_batch(cfg: Config, process: Process) -> None:
    """Raise ConfigError unless the batch can be divided among the processes."""
    parts = process.world_size * cfg.accumulate_steps
    if cfg.batch_size % parts:
        among = f"{process.world_size} processes"
        if cfg.accumulate_steps > 1:
            among += f" x TRAIN.accumulate_steps {cfg.accumulate_steps}"
        raise ConfigError(
            f"TRAIN.batch_size {cfg.batch_size} cannot be divided among {among}: choose a "
            f"multiple of {parts}"
        )
    if cfg.loss == "ohem" and cfg.accumulate_steps > 1:
        raise ConfigError(
            "TRAIN.loss ohem looks for the hardest pixels of the whole batch, which "
            f"TRAIN.accumulate_steps {cfg.accumulate_steps} never has at once: set it to 1"
        )


def batch_norm_images(cfg: Config, process: Process) -> int:
    """How many images BatchNorm averages over in training."""
    is_synchronised = cfg.sync_bn and process.world_size > 1
    parts = cfg.accumulate_steps * (1 if is_synchronised else process.world_size)
    return cfg.batch_size // parts


def train_mode(model: nn.Module, *, freeze_bn: bool) -> None:
    """Training mode; with `freeze_bn` BatchNorm normalises by its running statistics, unchanged."""
    model.train()
    for module in model.modules() if freeze_bn else ():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()


def train_step(
    cfg: Config,
    process: Process,
    state: State,
    image: Tensor,
    label: Tensor,
    *,
    criterion: SegmentationLoss,
    nonfinite: NonfiniteCheck,
    total_steps: int,
) -> StepResult:
    """Take the next step with this process's part of a batch: image (N, 3, H, W), label (N, H, W).

    The batch goes through the network in TRAIN.accumulate_steps parts. The loss is divided by the
    labelled pixels of the whole step, so neither the parts nor the processes change it.
    """
    seed_step(cfg.manual_seed, state.step, process.rank)
    lr = poly_lr(cfg.base_lr, state.step, total_steps, cfg.power)
    for group in state.optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]
    label = pick_labels(label.to(process.device, non_blocking=True), cfg.zoom_factor)
    over_all = process.all_reduce
    if cfg.accumulate_steps > 1:
        weight = process.all_reduce(criterion.main.weight(label)).repeat(2)
        over_all = lambda weights: weight  # noqa: E731

    statistics = Statistics(state.model)
    state.optimizer.zero_grad(set_to_none=True)
    losses, preds = [], []
    parts = list(
        zip(image.chunk(cfg.accumulate_steps), label.chunk(cfg.accumulate_steps), strict=True)
    )
    for i, (x, y) in enumerate(parts):
        is_last = i == len(parts) - 1
        with nullcontext() if is_last or process.world_size == 1 else state.model.no_sync():
            with autocast(process.device, state.amp):
                output = state.model(x.to(process.device, non_blocking=True))
            shares = criterion(*output, y, over_all=over_all)
            # The processes' gradients are averaged, but it is their sum that is the step's.
            state.scaler.scale(shares[0] * process.world_size).backward()
        losses.append(torch.stack(shares).detach())
        preds.append(output.logits.detach().argmax(dim=1))
    total = torch.stack(losses).sum(dim=0)
    left_out = nonfinite.check(total[0], state.step)
    if not state.scaler.is_enabled():  # else the scaler finds infinite gradients by itself
        state.optimizer.found_inf = left_out
    state.scaler.step(state.optimizer)
    state.scaler.update()
    statistics.go_back_if(left_out)
    state.step += 1
    taken = 1 - left_out
    total = torch.where(taken > 0, total, 0)
    return StepResult(total, torch.cat(preds), label, taken, lr)
