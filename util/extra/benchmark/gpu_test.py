"""benchmark gpu, part test: the plain loop and the predictor of tool/test.py on the same images."""

import statistics
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from model import build_model
from util.config import Config
from util.extra.benchmark.machine import arithmetic, seconds_of
from util.extra.benchmark.parts import guarded
from util.extra.benchmark.record import Deadline, Record
from util.extra.benchmark.step import operators, release, share_of
from util.extra.golden import fill, smooth_image
from util.extra.sliding_window_reference import enlarged_logits, plain_loop
from util.inference import build_predictor

SINGLE, SIX = (1.0,), (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
CONVOLUTIONS = ("conv", "mkldnn", "cudnn")  # parts of operator names


@dataclass(frozen=True)
class Case:
    """A network, an image size, scales and precisions.

    Measuring a compiled predictor takes about `likely` seconds, an uncompiled one a fifth of that.
    """

    name: str
    cfg: Config
    size: tuple[int, int]  # height, width
    scales: tuple[tuple[float, ...], ...]
    compiles: bool = True
    likely: float = 45.0


def run(
    record: Record, deadline: Deadline, *, cases: tuple[Case, ...], device: torch.device
) -> None:
    """Add the rows of as many cases as time allows, compiled predictors last."""
    models = {c.name: fill(build_model(c.cfg), c.name).to(device).eval() for c in cases}
    baselines: dict[tuple, tuple[float, np.ndarray]] = {}
    for case, scales, kind, compiled in plan(cases):
        words = f"{len(scales)} scale{'s' * (len(scales) > 1)}"
        name = f"{case.name}, {words}, {kind or 'plain loop'}{', compile' * compiled}"
        if deadline.left() < case.likely / (1 if compiled else 5):
            record.add("test", name, note="skipped: no time")
            continue
        cfg = replace(case.cfg, scales=list(scales), test_compile=compiled)

        def work(name=name, case=case, cfg=cfg, kind=kind) -> dict[str, Any]:
            model, image = models[case.name], smooth_image(case.name, *case.size)
            key = case.name, *cfg.scales
            if not kind:
                baselines[key] = time_plain(cfg, model, image, device)
                return {"images_per_second": 1 / baselines[key][0], "seconds": baselines[key][0]}
            base = baselines.get(key)
            found, costly = time_engine(cfg, model, image, device, kind=kind, base=base)
            record.add("operators", name, shares=costly)
            return found

        guarded(record, "test", name, work)
        torch.compiler.reset()
        release(device)


def plan(cases: tuple[Case, ...]) -> Iterator[tuple[Case, tuple[float, ...], str, bool]]:
    """Yield (case, scales, kind or '' for the plain loop, compiled?), most important first."""
    for case in cases:
        for scales in case.scales:
            for kind in ("", "bf16", "float32", "TF32"):
                yield case, scales, kind, False
    for case in cases:
        if case.compiles:
            yield case, case.scales[0], "bf16", True


def time_plain(
    cfg: Config, model: nn.Module, image: np.ndarray, device: torch.device
) -> tuple[float, np.ndarray]:
    """Return seconds and label map of the plain loop in float32 without TF32."""
    found: list[np.ndarray] = []
    logits = enlarged_logits(model, device)

    def work() -> None:
        probabilities = plain_loop(
            logits,
            image,
            classes=cfg.classes,
            crop=(cfg.test_h, cfg.test_w),
            base_size=cfg.base_size,
            scales=cfg.scales,
        )
        found.append(probabilities.argmax(axis=2))

    with arithmetic("float32"):
        repeats = 2 if len(cfg.scales) == 1 else 1
        seconds = seconds_of(work, device, repeats=repeats, warm_up=repeats - 1)
    return statistics.median(seconds), found[-1]


def time_engine(
    cfg: Config,
    model: nn.Module,
    image: np.ndarray,
    device: torch.device,
    *,
    kind: str,
    base: tuple[float, np.ndarray] | None,
) -> tuple[dict[str, Any], list[str]]:
    """Return speed, memory, agreement and share of convolutions, and the costliest operators."""
    on_gpu = device.type == "cuda"
    tf32 = "tf32" if device.type == "cuda" else "off"  # CPUs do not support it
    amp = {"float32": "off", "TF32": tf32, "bf16": "bf16"}[kind]
    with arithmetic(kind):
        predictor = build_predictor(cfg, model, device=device, amp=amp)
        label = predictor.predict(image)  # warms up, and compiles
        if on_gpu:
            torch.cuda.reset_peak_memory_stats(device)
        times = seconds_of(lambda: predictor.predict(image), device, repeats=5, warm_up=1)
        peak = torch.cuda.max_memory_allocated(device) / 2**30 if on_gpu else None
        shares = operators(lambda: predictor.predict(image), device)
    seconds = statistics.median(times)
    values = {
        "images_per_second": 1 / seconds,
        "seconds": seconds,
        "spread": (max(times) - min(times)) / seconds,
        "speed_up": base and base[0] / seconds,
        "equal_labels": base and float((label == base[1]).mean()),
        "peak_gib": peak,
        "in_convolutions": share_of(CONVOLUTIONS, shares),
    }
    return values, [f"{key} {share:.1%}" for key, share in shares[:8]]
