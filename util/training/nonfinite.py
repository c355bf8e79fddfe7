"""Skips steps whose loss or gradients are not finite, on all processes alike.

The decision is made on the device, without a host sync: a non-finite loss makes all gradients NaN,
the all-reduce spreads the NaN to all processes, and the fused optimizer skips the step.
"""

import logging

import torch
from torch import Tensor, nn

from util.config import Config
from util.data.dataset import Loader
from util.distributed import Process
from util.error import RunError

log = logging.getLogger("semseg")

STEPS_BETWEEN_LOOKS = 10  # each look is a host sync
_SHOWN = 8  # images named in a message


def nan_unless_finite(loss: Tensor) -> Tensor:
    """Return the loss, or NaN if it is not finite, so that all gradients become NaN as well."""
    return loss * torch.where(loss.isfinite(), 1.0, torch.nan)


def has_nonfinite_gradient(model: nn.Module) -> Tensor:
    """Return 1.0, on the device, if any gradient is infinite, NaN or beyond 1e19, else 0.0."""
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    norms = torch.stack(torch._foreach_norm(gradients))  # on a CPU 9 times faster than the maximum
    return 1.0 - norms.isfinite().all().float()


class BatchNormStatistics:
    """A copy of the running statistics before a step, to be restored if the step is skipped."""

    def __init__(self, model: nn.Module) -> None:
        norms = [
            module
            for module in model.modules()
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training
        ]
        buffers = [b for m in norms for b in (m.running_mean, m.running_var)]
        self._buffers = [b for b in buffers if b is not None]
        self._counters = [m.num_batches_tracked for m in norms if m.num_batches_tracked is not None]
        self._before = torch.cat(self._buffers) if self._buffers else None
        self._counts = torch.stack(self._counters) if self._counters else None

    def restore_if(self, left_out: Tensor) -> None:
        """Restore them if `left_out`, a scalar on the device, is 1; a few kernels, no sync."""
        if self._before is None or self._counts is None:
            return
        values = torch.where(left_out > 0, self._before, torch.cat(self._buffers))
        torch._foreach_copy_(self._buffers, values.split([b.numel() for b in self._buffers]))
        counts = torch.where(left_out > 0, self._counts, torch.stack(self._counters))
        torch._foreach_copy_(self._counters, counts.unbind())


class NonfiniteCheck:
    """Reports skipped steps: TRAIN.nonfinite `stop` raises RunError, `skip` logs a warning."""

    def __init__(self, cfg: Config, process: Process, loader: Loader, *, amp: str) -> None:
        self._cfg, self._process, self._loader, self._amp = cfg, process, loader, amp
        self._steps: list[int] = []
        self._flags: list[Tensor] = []
        self.skipped = 0

    def add(self, step: int, loss: Tensor, left_out: Tensor) -> None:
        """Record a step (0 = first), this process's share of its loss, and if it was skipped."""
        self._steps.append(step)
        self._flags.append(torch.stack([1.0 - loss.isfinite().float(), left_out]))

    def look(self) -> None:
        """Report the steps skipped since the last look; collective: call after the same step.

        Raises RunError if TRAIN.nonfinite is `stop`.
        """
        flags = self._process.all_gather(torch.stack(self._flags)[None]).tolist()
        for i, step in enumerate(self._steps):
            ranks = [rank for rank, own in enumerate(flags) if own[i][0]]
            # With fp16, gradients overflow occasionally and GradScaler lowers its scale: no error.
            if flags[0][i][1] and (ranks or self._amp != "fp16"):
                self._report(step, ranks)
        self._steps, self._flags = [], []

    def _report(self, step: int, ranks: list[int]) -> None:
        self.skipped += 1
        batches = self._loader.names(*divmod(step, len(self._loader)))
        images = [name for rank in ranks or range(len(batches)) for name in batches[rank]]
        shown = ", ".join(images[:_SHOWN]) + (", ..." if len(images) > _SHOWN else "")
        where = f" in process {', '.join(map(str, ranks))}" if ranks and len(batches) > 1 else ""
        what = "loss" if ranks else "gradient"
        what = f"the {what} of step {step + 1}{where} is not finite (images {shown})"
        if self._cfg.nonfinite == "stop":
            raise RunError(
                f"{what}: lower TRAIN.base_lr {self._cfg.base_lr}, "
                f"{'' if self._amp == 'off' else 'set TRAIN.amp off '}or look at these images with "
                "tool/browse_data.py; TRAIN.nonfinite skip skips such steps. The weights are not "
                "affected: TRAIN.resume auto continues from the last checkpoint"
            )
        log.warning(f"{what}: step skipped, {self.skipped} so far in this epoch")
