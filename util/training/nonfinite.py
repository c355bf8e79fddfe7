"""Keeps a loss that is not finite out of the weights, on all processes alike.

The decision is made on the device: the optimizer leaves the step out and BatchNorm's statistics
go back, without a word to the host, which looks at the record now and then.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from util.distributed import Process
from util.error import RunError

STEPS_BETWEEN_LOOKS = 10  # where looking at the device makes the host wait
_SHOWN = 8  # images named


class NonfiniteCheck:
    """`kind` stop ends the run at such a step, skip leaves it out and counts it in `skipped`.

    `names_of(step)` gives the names of a step's images, one list per process.
    """

    def __init__(
        self,
        process: Process,
        *,
        kind: str,
        names_of: Callable[[int], list[list[str]]],
        warn: Callable[[str], None],
    ) -> None:
        self._process, self._kind = process, kind
        self._names_of, self._warn = names_of, warn
        self._record: list[tuple[int, Tensor]] = []
        self.skipped = 0

    def is_time(self, step: int) -> bool:
        """Whether the host looks at the device after this step."""
        return self._process.reads_are_free or step % STEPS_BETWEEN_LOOKS == 0

    def check(self, loss: Tensor, step: int) -> Tensor:
        """1.0 on the device if the step's loss is not finite in any process, else 0.0."""
        flags = loss.new_zeros(self._process.world_size, dtype=torch.float32)
        flags[self._process.rank] = (~torch.isfinite(loss)).float()
        self._record.append((step, self._process.all_reduce(flags)))
        return flags.amax()

    def look(self) -> None:
        """Report the steps since the last look. Raises RunError if one of them ends the run."""
        record, self._record = self._record, []
        if not record:
            return
        for (step, _), flags in zip(
            record, torch.stack([f for _, f in record]).tolist(), strict=True
        ):
            if not any(flags):
                continue
            self.skipped += 1
            ranks = [rank for rank, flag in enumerate(flags) if flag]
            names = self._names_of(step)
            images = [name for rank in ranks for name in names[rank]]
            shown = ", ".join(images[:_SHOWN]) + (", ..." if len(images) > _SHOWN else "")
            where = f" in process {', '.join(map(str, ranks))}" if len(flags) > 1 else ""
            what = f"the loss of step {step + 1}{where} is not finite (images {shown})"
            if self._kind == "stop":
                raise RunError(
                    f"{what}: lower TRAIN.base_lr, set TRAIN.amp off or look at these images "
                    "with tool/browse_data.py; TRAIN.nonfinite skip leaves such steps out. The "
                    "weights are clean: TRAIN.resume auto goes on from the last checkpoint"
                )
            self._warn(f"{what}: step left out, {self.skipped} so far")


class Statistics:
    """BatchNorm's running statistics before a step, to go back to."""

    def __init__(self, model: nn.Module) -> None:
        buffers = [
            buffer
            for module in model.modules()
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training
            for buffer in (module.running_mean, module.running_var)
        ]
        self._pairs = [(buffer, buffer.clone()) for buffer in buffers]

    def go_back_if(self, flag: Tensor) -> None:
        """Restore all of them where the flag on the device is not 0."""
        if flag.device.type == "cpu" and not flag:  # where looking costs nothing
            return
        for buffer, old in self._pairs:
            buffer.copy_(torch.where(flag > 0, old, buffer))
