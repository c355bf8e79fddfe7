"""Measuring training steps with the project's train_step: seconds, memory and FLOP of a config."""

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from model import build_model
from model.activation_checkpointing import checkpoint_activations
from util.config import Config
from util.distributed import Process
from util.distributed.sync_bn import synchronise_batch_norm
from util.extra.benchmark.machine import wait
from util.training.loss import build_loss
from util.training.state import start_state
from util.training.step import StepResult, train_mode, train_step


class Trainer:
    """A network in training, with a fixed batch of random numbers."""

    def __init__(self, cfg: Config, device: torch.device, *, sync_bn: bool = False) -> None:
        self.cfg = cfg if cfg.manual_seed is not None else replace(cfg, manual_seed=0)
        self.device = device
        self._process = Process(device=device)
        network: Any = build_model(cfg)
        if cfg.activation_checkpointing:
            checkpoint_activations(network)
        if sync_bn:
            network = synchronise_batch_norm(network, on_gpu=device.type == "cuda")
        self.state = start_state(self.cfg, self._process, network, steps_per_epoch=100)
        if sync_bn:
            self.state.model = nn.parallel.DistributedDataParallel(self.state.model)
        train_mode(self.state.model, freeze_bn=cfg.freeze_bn)
        self._criterion = build_loss(
            cfg.loss,
            ignore_label=cfg.ignore_label,
            aux_weight=cfg.aux_weight,
            weights=None,
            ohem_threshold=cfg.ohem_threshold,
            ohem_min_kept=cfg.ohem_min_kept,
            all_gather=self._process.all_gather,
        )
        self.image, self.label = random_batch(cfg, pinned=device.type == "cuda")

    def step(self) -> StepResult:
        """Run a step as in tool/train.py."""
        return train_step(
            self.cfg, self._process, self.state, self._criterion, self.image, self.label
        )

    def flop(self) -> int:
        """Run a step and count its floating-point operations."""
        with FlopCounterMode(display=False) as counter:
            self.step()
        return counter.get_total_flops()


def random_batch(cfg: Config, *, pinned: bool) -> tuple[Tensor, Tensor]:
    """Generate a batch of the config's size, like that of a loader."""
    size = cfg.batch_size, cfg.train_h, cfg.train_w
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(size[0], 3, *size[1:], generator=generator)
    label = torch.randint(0, cfg.classes, size, generator=generator)
    return (image.pin_memory(), label.pin_memory()) if pinned else (image, label)


@dataclass(frozen=True)
class Measured:
    """Measured steps: median and extremes in seconds, and the device's memory."""

    seconds: float
    fastest: float
    slowest: float
    peak_gib: float | None
    reserved_gib: float | None


def measure_steps(trainer: Trainer, *, seconds: float, warm_up: int = 3) -> Measured:
    """Run steps for about `seconds`, in three series that only synchronise at their ends."""
    device = trainer.device
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(device)
    for _ in range(warm_up):
        trainer.step()
    wait(device)
    start = time.perf_counter()
    trainer.step()
    wait(device)
    count = max(1, min(100, round(seconds / 3 / max(time.perf_counter() - start, 1e-4))))
    found = []
    for _ in range(3):
        start = time.perf_counter()
        for _ in range(count):
            trainer.step()
        wait(device)
        found.append((time.perf_counter() - start) / count)
    peak = torch.cuda.max_memory_allocated(device) / 2**30 if on_gpu else None
    reserved = torch.cuda.max_memory_reserved(device) / 2**30 if on_gpu else None
    return Measured(statistics.median(found), min(found), max(found), peak, reserved)


@contextmanager
def group_of_one(device: torch.device):
    """Create a process group of this process only."""
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()


def surrounding(sync_bn: bool, device: torch.device) -> AbstractContextManager:
    """Return the context a trainer needs: a process group for SyncBatchNorm, else nothing."""
    return group_of_one(device) if sync_bn else nullcontext()


def release(device: torch.device) -> None:
    """Free unreferenced memory."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def operators(
    work: Callable[[], Any], device: torch.device, *, repeats: int = 2
) -> list[tuple[str, float]]:
    """Return (operator, share of device time), the most expensive first."""
    activities = [ProfilerActivity.CPU]
    on_gpu = device.type == "cuda"
    if on_gpu:
        activities.append(ProfilerActivity.CUDA)
    work()
    wait(device)
    with profile(activities=activities) as found:
        for _ in range(repeats):
            work()
        wait(device)
    field = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    # Kernels are listed separately from the operators that launched them.
    events = [e for e in found.key_averages() if str(e.device_type).endswith("CPU")]
    times = {e.key: getattr(e, field) for e in events if getattr(e, field) > 0}
    total = sum(times.values()) or 1
    return sorted(((k, v / total) for k, v in times.items()), key=lambda pair: -pair[1])


def share_of(names: Sequence[str], shares: list[tuple[str, float]]) -> float:
    """Sum the shares of operators whose names contain one of `names`."""
    return sum(share for key, share in shares if any(name in key for name in names))
