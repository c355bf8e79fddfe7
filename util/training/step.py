"""One training step: forward, loss, backward, update; same result on any number of processes."""

from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from util.config import Config
from util.distributed import Process, unwrap
from util.distributed.device import autocast
from util.training.batch import image_on, label_on
from util.training.loss import SegmentationLoss, label_at
from util.training.nonfinite import BatchNormStatistics, has_nonfinite_gradient, nan_unless_finite
from util.training.seed import seed_step
from util.training.state import State


@dataclass(frozen=True)
class StepResult:
    """Result of a step in this process; all tensors are on the device."""

    losses: Tensor  # (3,): this process's share of the total, main and aux loss
    pred: Tensor  # (N, h, w) class ids
    label: Tensor  # (N, h, w)
    left_out: Tensor  # scalar: 1.0 if the step was skipped, else 0.0
    lr: float


def train_mode(model: nn.Module, *, freeze_bn: bool) -> None:
    """Set training mode; with `freeze_bn` BatchNorm uses its running statistics, unchanged."""
    model.train()
    for module in model.modules() if freeze_bn else ():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()


def train_step(
    cfg: Config,
    process: Process,
    state: State,
    criterion: SegmentationLoss,
    image: Tensor,
    label: Tensor,
) -> StepResult:
    """Train on this process's share of a batch: image (N, 3, H, W), label (N, H, W).

    The share is split into TRAIN.accumulate_steps micro-batches. The loss is divided by the number
    of labelled pixels of the whole step, so it does not depend on how the batch is split.
    """
    assert cfg.manual_seed is not None  # read_resume() has chosen one
    seed_step(cfg.manual_seed, state.step, process.rank)
    lr = state.rate(cfg)
    for group in state.optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]
    batch_norm = BatchNormStatistics(state.model)
    state.optimizer.zero_grad(set_to_none=True)

    label = label_on(process.device, label)
    sizes = unwrap(state.model).label_sizes(*label.shape[-2:])
    parts = cfg.accumulate_steps
    losses, preds = [], []
    for i, (x, y) in enumerate(zip(image.chunk(parts), label.chunk(parts), strict=True)):
        is_last = i == parts - 1
        is_plain = is_last or process.world_size == 1
        with nullcontext() if is_plain else state.model.no_sync():  # type: ignore[operator]
            with autocast(process.device, state.amp):
                output = state.model(image_on(process.device, x))
            heads = (output.logits, *output.auxiliary)
            sums, weights, pred = criterion.sums(heads, y, sizes)
            if i == 0:
                weights = weights if parts == 1 else criterion.weights(label, sizes)
                all_weights = process.all_reduce(weights)
            part_losses = criterion.losses(sums, all_weights)
            # DDP averages gradients over processes, but the step needs their sum.
            loss = nan_unless_finite(part_losses[0]) * process.world_size
            state.scaler.scale(loss).backward()
        losses.append(part_losses.detach())
        preds.append(pred)

    left_out = has_nonfinite_gradient(state.model)
    if not state.scaler.is_enabled():  # an enabled scaler skips the step itself
        state.optimizer.found_inf = left_out  # type: ignore[attr-defined]
    state.scaler.step(state.optimizer)
    state.scaler.update()
    batch_norm.restore_if(left_out)
    state.step_in_epoch += 1
    label = label_at(label, sizes[0])
    return StepResult(torch.stack(losses).sum(dim=0), torch.cat(preds), label, left_out, lr)
