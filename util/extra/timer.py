"""Timing of work and of the network's part in it."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True)
class Turn:
    """Duration of one run in seconds, and the part of it spent in the network."""

    seconds: float
    network: float


class Timer:
    """Times work and, separately, the forward passes of a module."""

    def __init__(self, module: nn.Module, device: torch.device) -> None:
        self._module, self._device = module, device
        self._network = self._entered = 0.0

    def time(self, work: Callable[[], Any]) -> tuple[Turn, Any]:
        """Run `work`; return its times and its result."""
        hooks = [
            self._module.register_forward_pre_hook(self._enter),
            self._module.register_forward_hook(self._leave),
        ]
        self._network, start = 0.0, self._now()
        result = work()
        turn = Turn(self._now() - start, self._network)
        for hook in hooks:
            hook.remove()
        return turn, result

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()

    def _enter(self, *_: Any) -> None:
        self._entered = self._now()

    def _leave(self, *_: Any) -> None:
        self._network += self._now() - self._entered
