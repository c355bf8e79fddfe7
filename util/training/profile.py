"""What a step costs: its FLOPs and memory, and where its time goes (TRAIN.profile)."""

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

STEPS_BEFORE = 2  # not profiled: they allocate memory and choose algorithms
_SHOWN = 12  # operators


def flops_per_image(network: nn.Module, crop: tuple[int, int]) -> float:
    """FLOPs of a training step for one image of `crop`: three forward passes, as the backward pass
    computes two products for each; 0 where they cannot be counted. Counted on a copy without
    values, not yet compiled."""
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            copy.deepcopy(network).to("meta").train()(torch.zeros(2, 3, *crop, device="meta"))
    except Exception as error:  # whatever a library's backbone does that needs values
        log.info(f"FLOPs are not counted: {error}")
        return 0.0
    return 3 * counter.get_total_flops() / 2


def peak_memory(device: torch.device) -> int:
    """The most bytes so far: of a GPU's tensors, else of the process; 0 where that is unknown."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


class StepProfiler:
    """Profiles `steps` steps of training into a Chrome trace in `folder`; 0: does nothing."""

    def __init__(self, steps: int, folder: str, device: torch.device) -> None:
        self._steps, self._folder, self._device = steps, Path(folder), device
        self._done = 0
        activities = [ProfilerActivity.CPU]
        if device.type == "cuda":
            activities.append(ProfilerActivity.CUDA)
        self._profile = profile(activities=activities) if steps else None

    def step(self) -> None:
        """To be called after each step."""
        self._done += 1
        if self._profile and self._done == STEPS_BEFORE:
            self._profile.start()
        if self._profile and self._done == STEPS_BEFORE + self._steps:
            self._finish(self._profile)
            self._profile = None

    def close(self) -> None:
        """To be called at the end of the run."""
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
                f"  {time / total:6.1%} {time / self._steps / 1000:9.3f} ms a step "
                f"{event.count // self._steps:5d} calls  {event.key[:80]}"
            )
