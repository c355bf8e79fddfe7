"""The cost of a training step: FLOPs, memory and a profile (TRAIN.profile)."""

import copy
import logging
import sys
from datetime import datetime
from pathlib import Path

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

log = logging.getLogger("semseg")

STEPS_BEFORE = 2  # warm-up steps, which allocate memory and choose algorithms
_SHOWN = 12  # operators listed in the log


def flops_per_image(network: nn.Module, crop: tuple[int, int]) -> float:
    """Return the FLOPs of a training step per image of size `crop`, 0 if they cannot be counted.

    Three times the forward pass: the backward pass computes two products for each. Counted on a
    copy on the meta device. `network` must not be compiled yet.
    """
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            copy.deepcopy(network).to("meta").train()(torch.zeros(2, 3, *crop, device="meta"))
    except Exception as error:  # a library's backbone may do anything that needs real values
        log.info(f"FLOPs are not counted: {error}")
        return 0.0
    return 3 * counter.get_total_flops() / 2


def peak_memory(device: torch.device) -> int:
    """Return peak memory in bytes: of a GPU's tensors, else of the process; 0 if unknown."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


class StepProfiler:
    """Profiles `steps` training steps and writes a Chrome trace to `folder`; 0 disables it."""

    def __init__(self, steps: int, folder: str, device: torch.device) -> None:
        self._steps, self._folder, self._device = steps, Path(folder), device
        self._done = 0
        activities = [ProfilerActivity.CPU]
        if device.type == "cuda":
            activities.append(ProfilerActivity.CUDA)
        self._profile = profile(activities=activities) if steps else None

    def step(self) -> None:
        """Call after each step."""
        self._done += 1
        if self._profile and self._done == STEPS_BEFORE:
            self._profile.start()
        if self._profile and self._done == STEPS_BEFORE + self._steps:
            self._finish(self._profile)
            self._profile = None

    def close(self) -> None:
        """Call at the end of the run."""
        if self._profile and self._done > STEPS_BEFORE:
            self._steps = self._done - STEPS_BEFORE
            self._finish(self._profile)
        elif self._profile:
            log.warning(f"TRAIN.profile starts after {STEPS_BEFORE} steps: this run was shorter")

    def _finish(self, profile: profile) -> None:
        profile.stop()
        path = self._folder / f"profile-{datetime.now():%Y%m%d_%H%M%S}.json"
        profile.export_chrome_trace(str(path))
        on_gpu = self._device.type == "cuda"
        name = "self_device_time_total" if on_gpu else "self_cpu_time_total"  # in microseconds
        events = [(getattr(event, name), event) for event in profile.key_averages()]
        events.sort(key=lambda pair: pair[0], reverse=True)
        total = sum(time for time, _ in events) or 1
        log.info(f"profile of {self._steps} steps: {path} (open it in chrome://tracing)")
        for time, event in events[:_SHOWN]:
            log.info(
                f"  {time / total:6.1%} {time / self._steps / 1000:9.3f} ms per step "
                f"{event.count // self._steps:5d} calls  {event.key[:80]}"
            )
