"""Estimates of what a recipe needs on this machine: memory, time, disk, loader workers."""

import math
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, repeat
from typing import Any

import numpy as np
import torch

from model import build_model
from util.config import Config
from util.data.dataset import BatchSampler, Loader, build_data
from util.data.image import read_image
from util.data.list_file import Sample
from util.distributed.device import usable_amp
from util.error import RunError
from util.extra.benchmark.machine import available_cores, wait
from util.extra.benchmark.parts import apart
from util.extra.benchmark.step import Trainer
from util.inference import build_predictor
from util.training.profile import flops_per_image, peak_memory

SECONDS = 600.0  # time limit of a measurement
WARM_UP, STEPS = 2, 4  # steps before measuring, and measured at least
MEASURED, LONG = 3.0, 20.0  # seconds to measure at least, and after which fewer steps will do
SAMPLES = 6  # images loaded to time the loader
USABLE = 0.8  # fraction of the memory that a measurement may take
GIB = 2**30
# Keys that save memory, and how to write them; each is measured together with those before it.
SAVINGS: tuple[tuple[dict[str, Any], str], ...] = (
    ({"amp": "bf16", "channels_last": True}, "amp bf16, channels_last True"),
    ({"activation_checkpointing": True, "compile": False}, "activation_checkpointing True"),
)


@dataclass(frozen=True)
class Cost:
    """The cost of a training step: time, and peak memory in GiB."""

    batch_size: int
    seconds: float
    gib: float


@dataclass(frozen=True)
class Line:
    """The line through the costs of two measured batch sizes."""

    low: Cost
    high: Cost

    def at(self, batch_size: int) -> Cost:
        """Interpolate or extrapolate; a larger batch never takes less time than a measured one."""
        position = (batch_size - self.low.batch_size) / (self.high.batch_size - self.low.batch_size)
        seconds = self.low.seconds + position * (self.high.seconds - self.low.seconds)
        gib = self.low.gib + position * (self.high.gib - self.low.gib)
        least = self.low.seconds / (1 if batch_size >= self.low.batch_size else 2)
        return Cost(batch_size, max(seconds, least), max(gib, 0.0))


def step_cost(cfg: Config, device: torch.device, batch_size: int) -> Cost:
    """Measure in a new process. Raises RunError if the step fails."""
    work = partial(_step, replace(cfg, batch_size=batch_size), device)
    found = apart(work, seconds=SECONDS, is_fresh=True)
    if not isinstance(found, Cost):
        raise RunError(
            f"a training step with batch size {batch_size} does not run on this machine, most "
            "likely for lack of memory: lower TRAIN.train_h and train_w"
        )
    return found


def _step(cfg: Config, device: torch.device) -> Cost:
    """Train with the recipe's own images and loader workers, which compete with steps on a CPU."""
    data, size = build_data(cfg, is_training=True), cfg.batch_size
    data = replace(data, samples=[*data.samples] * math.ceil(size / len(data)))
    sampler = BatchSampler(len(data), size, shuffle=True)
    loader = Loader(data, sampler, workers=cfg.workers, pin_memory=device.type == "cuda")
    trainer = Trainer(cfg, device)
    flops_per_image(
        trainer.state.model, (cfg.train_h, cfg.train_w)
    )  # as tool/train.py does: it takes memory
    ends: list[float] = []
    for trainer.image, trainer.label in chain.from_iterable(repeat(loader)):
        trainer.step()
        wait(device)
        ends.append(time.perf_counter())
        steps, seconds = len(ends) - WARM_UP, ends[-1] - ends[:WARM_UP][-1]
        if (seconds > MEASURED and steps >= STEPS) or seconds > LONG:
            break
    return Cost(cfg.batch_size, seconds / steps, peak_memory(device) / GIB)


def step_line(cfg: Config, device: torch.device, *, usable_gib: float) -> Line:
    """Measure a step at batch size 2, the least that BatchNorm takes, and at the recipe's.

    If that may need more than `usable_gib`, at 2 and 4 instead.
    """
    size = cfg.batch_size
    low, high = step_cost(cfg, device, 2), step_cost(cfg, device, min(4, max(3, size)))
    if size > 4 and Line(low, high).at(size).gib < usable_gib:
        with suppress(RunError):
            high = step_cost(cfg, device, size)
    return Line(low, high)


def savings(cfg: Config, device: torch.device, *, usable_gib: float) -> list[tuple[str, Line]]:
    """Return (keys, costs) for each saving the recipe does not use yet, cumulatively."""
    found = []
    for keys, words in SAVINGS:
        if "amp" in keys and usable_amp(keys["amp"], device) == "off":
            continue
        if all(getattr(cfg, name) == value for name, value in keys.items()):
            continue
        cfg = replace(cfg, **keys)
        found.append((words, step_line(cfg, device, usable_gib=usable_gib)))
    return found


def loading_seconds(cfg: Config) -> tuple[float, int]:
    """Return the seconds a core needs to load a training image, and the number of images."""
    data = build_data(cfg, is_training=True)
    count = min(SAMPLES, len(data))
    data[0, 0]
    start = time.perf_counter()
    for i in range(count):
        data[0, i]
    return (time.perf_counter() - start) / count, len(data)


def test_seconds(cfg: Config, device: torch.device, sample: Sample) -> float:
    """Return the seconds that testing an image takes, NaN if it fails or takes too long."""
    image = read_image(sample.image)
    seconds = apart(partial(_test, cfg, device, image), seconds=SECONDS)
    return math.nan if seconds is None else seconds


def _test(cfg: Config, device: torch.device, image: np.ndarray) -> float:
    amp = usable_amp(cfg.test_amp, device)
    predictor = build_predictor(cfg, build_model(cfg), device=device, amp=amp)
    predictor.predict(image)
    start = time.perf_counter()
    predictor.predict(image)
    return time.perf_counter() - start


def memory_gib(device: torch.device) -> float:
    """Return the total memory of the device."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory / GIB
    names = getattr(os, "sysconf_names", {})
    if "SC_PHYS_PAGES" not in names:
        return math.inf
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / GIB


def checkpoint_bytes(cfg: Config) -> int:
    """Return the size of a checkpoint: float32 weights and the optimizer's averages."""
    network = build_model(cfg)
    weights = sum(value.nbytes for value in network.state_dict().values())
    averages = 2 if cfg.optimizer == "adamw" else int(cfg.momentum > 0)
    return weights + averages * sum(p.nbytes for p in network.parameters())


def batch_sizes(cfg: Config) -> Sequence[int]:
    """Return 2, 4, 8, ... up to twice the recipe's batch size, and that itself.

    A batch of 1 is for `freeze_bn` only: BatchNorm needs two images.
    """
    first = 0 if cfg.freeze_bn else 1
    powers = [2**i for i in range(first, int(math.log2(2 * cfg.batch_size)) + 1)]
    return sorted({*powers, cfg.batch_size})


def schedule(cfg: Config, step: Cost, load: float, images: int) -> dict[str, Any]:
    """Return the time of an epoch and of the run, and the workers that keep the device busy."""
    steps = images // cfg.batch_size
    needed = math.ceil(cfg.batch_size * load / step.seconds)
    workers = max(1, min(cfg.workers or 1, available_cores()))
    seconds = max(step.seconds, cfg.batch_size * load / workers)
    return {
        "steps_per_epoch": steps,
        "workers_needed": needed,
        "seconds_per_step": seconds,
        "seconds_per_epoch": steps * seconds,
        "hours": cfg.epochs * steps * seconds / 3600,
    }
