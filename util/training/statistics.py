"""Statistics of a training epoch, accumulated on the device and reduced over all processes."""

import time
from typing import Any

import torch

from util.config import Config
from util.distributed import Process
from util.error import RunError
from util.metric import ConfusionMatrix, Scores
from util.training.profile import peak_memory
from util.training.step import StepResult


class EpochStatistics:
    """Losses, accuracy and speed of an epoch; `flops` is the cost of a step per image."""

    def __init__(self, cfg: Config, process: Process, *, amp: str, flops: float = 0.0) -> None:
        self._cfg, self._process, self._amp, self._flops = cfg, process, amp, flops
        self._matrix = ConfusionMatrix(cfg.classes, cfg.ignore_label, device=process.device)
        self._losses = torch.zeros(3, device=process.device)  # total, main, aux
        self._taken = torch.zeros((), device=process.device)
        self._finite = torch.zeros((), device=process.device)
        self._steps, self._waited = 0, 0.0
        self._start = time.perf_counter()

    def add(self, result: StepResult, *, waited: float = 0.0) -> None:
        """Accumulate a step that waited `waited` seconds for data, without a host sync."""
        self._matrix.update(result.pred, result.label)
        self._losses += torch.where(result.left_out > 0, 0, result.losses)
        self._taken += 1 - result.left_out
        self._finite += result.losses[0].isfinite()
        self._steps += 1
        self._waited += waited

    def accuracy(self) -> float:
        """Pixel accuracy of this process so far."""
        return self._matrix.scores().aacc

    def images_per_second(self) -> float:
        """Speed of all processes together so far; call when the device is synchronised."""
        return self._steps * self._cfg.batch_size / (time.perf_counter() - self._start)

    def sum(self) -> tuple[Scores, dict[str, Any]]:
        """Return the epoch's scores and record over all processes; a collective call.

        Raises RunError if all steps were skipped, unless fp16 was still searching for its scale.
        """
        self._process.all_reduce(self._matrix.matrix)
        scores, taken = self._matrix.scores(), int(self._taken.item())
        finite = self._process.all_reduce(self._finite).item()
        if not taken and not (finite and self._amp == "fp16"):
            raise RunError(
                "every step of this epoch was skipped, as its loss or gradient was not finite: the "
                f"run has diverged; start again with a lower TRAIN.base_lr ({self._cfg.base_lr} "
                "now), or from an earlier checkpoint"
            )
        total, main, aux = (self._process.all_reduce(self._losses) / max(taken, 1)).tolist()
        images_per_second = self.images_per_second()
        return scores, {
            "train_loss": total,
            "main_loss": main,
            "aux_loss": aux,
            "train_miou": scores.miou,
            "train_aacc": scores.aacc,
            "steps": taken,
            "skipped_steps": self._steps - taken,
            "images_per_second": images_per_second,
            "data_wait": self._waited / (time.perf_counter() - self._start),
            "memory_gib": peak_memory(self._process.device) / 2**30,
            "tflops": images_per_second * self._flops / 1e12,
        }
