"""benchmark memory: peak memory of a training step and of a test, each in its own process."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from model import build_model
from util.config import Config
from util.distributed.device import usable_amp
from util.extra.benchmark.parts import apart
from util.extra.benchmark.plain_step import PlainStep
from util.extra.benchmark.record import Record
from util.extra.benchmark.step import Trainer
from util.extra.golden import smooth_image
from util.extra.sliding_window_reference import enlarged_logits, plain_loop
from util.inference import build_predictor
from util.training.profile import peak_memory

SECONDS = 600.0  # time limit of each measurement
LARGE = (1500, 2000)  # height, width of the test image


def run(
    record: Record, *, cfg: Config, device: torch.device, size: tuple[int, int] = LARGE
) -> None:
    """Add the rows of training steps and of testing a large image."""
    fast = usable_amp("bf16", device)
    cfg = replace(cfg, amp="off", channels_last=False, compile=False)
    lean = replace(cfg, amp=fast, channels_last=True)
    works: dict[str, Callable[[], None]] = {
        "step, plain script": partial(plain_step, cfg, device),
        "step, float32": partial(step, cfg, device),
        f"step, amp {fast}, channels_last": partial(step, lean, device),
        "the same, activation checkpointing": partial(
            step, replace(lean, activation_checkpointing=True), device
        ),
        f"test of {size[1]}x{size[0]}, plain loop": partial(plain_test, cfg, device, size),
        f"test of {size[1]}x{size[0]}, engine": partial(test, cfg, device, size, "off"),
        f"test of {size[1]}x{size[0]}, engine, amp {fast}": partial(test, cfg, device, size, fast),
    }
    first: dict[str, float] = {}
    for name, work in works.items():
        found = apart(partial(peak_gib, work, device), seconds=SECONDS)
        if found is None:
            record.add("memory", name, note="failed or took too long")
            continue
        base = first.setdefault(name.split(",")[0] if name[0] == "t" else "step", found)
        record.add("memory", name, peak_gib=found, ratio=base / found)


def peak_gib(work: Callable[[], Any], device: torch.device) -> float:
    """Measure peak memory of `work` in GiB, of the device or, on a CPU, of this process.

    Call it in a new process: memory allocated and freed before would hide the peak.
    """
    before = 0 if device.type == "cuda" else peak_memory(device)
    work()
    return (peak_memory(device) - before) / 2**30


def plain_step(cfg: Config, device: torch.device) -> None:
    """Run two steps, so that momentum is allocated."""
    own = PlainStep(cfg, device)
    own.step()
    own.step()


def step(cfg: Config, device: torch.device) -> None:
    """Run two steps of this project."""
    own = Trainer(cfg, device)
    own.step()
    own.step()


def plain_test(cfg: Config, device: torch.device, size: tuple[int, int]) -> None:
    """Run the plain loop at one scale with random weights."""
    network = build_model(cfg).to(device).eval()
    logits = enlarged_logits(network, device)
    crop = (cfg.test_h, cfg.test_w)
    image = smooth_image("memory", *size)
    plain_loop(logits, image, classes=cfg.classes, crop=crop, base_size=max(size), scales=[1.0])


def test(cfg: Config, device: torch.device, size: tuple[int, int], amp: str) -> None:
    """Run the predictor at one scale with random weights."""
    cfg = replace(cfg, base_size=max(size), scales=[1.0])
    predictor = build_predictor(cfg, build_model(cfg), device=device, amp=amp)
    predictor.predict(smooth_image("memory", *size))
