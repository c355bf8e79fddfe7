"""benchmark gpu, part step: training steps of the large networks in all relevant modes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from util.config import Config
from util.extra.benchmark.machine import DTYPES, arithmetic, product_rate
from util.extra.benchmark.parts import guarded
from util.extra.benchmark.plain_step import PlainStep
from util.extra.benchmark.record import Deadline, Record
from util.extra.benchmark.step import (
    Trainer,
    measure_steps,
    operators,
    release,
    surrounding,
)

SECONDS = 1.5  # timing of each mode


@dataclass(frozen=True)
class Mode:
    """Precision and options of a step; `likely` is the estimated time on a large GPU in seconds."""

    name: str
    kind: str = "bf16"  # of machine.DTYPES
    benchmark: bool = True  # cudnn.benchmark
    sync_bn: bool = False
    keys: tuple[tuple[str, Any], ...] = ()
    likely: float = 8.0

    def apply(self, cfg: Config) -> Config:
        """Return the config with the keys of this mode."""
        amp = self.kind if self.kind in ("bf16", "fp16") else "off"
        return replace(cfg, **{"amp": amp, **dict(self.keys)})


LAST = (("channels_last", True),)
PLAIN = Mode("plain script, float32, TF32 off", "float32", benchmark=False)
BEST = Mode("bf16, channels_last, cudnn.benchmark", keys=LAST)
COMPILED = Mode(
    "bf16, channels_last, cudnn.benchmark, compile", keys=(*LAST, ("compile", True)), likely=70.0
)
CHECKPOINTED = Mode(
    "bf16, channels_last, cudnn.benchmark, activation checkpointing",
    keys=(*LAST, ("activation_checkpointing", True)),
)
ALL_MODES = (
    PLAIN,
    BEST,
    Mode("float32, TF32 off", "float32", benchmark=False),
    Mode("TF32", "TF32", benchmark=False),
    Mode("TF32, channels_last", "TF32", benchmark=False, keys=LAST),
    Mode("bf16", benchmark=False),
    Mode("bf16, channels_last", benchmark=False, keys=LAST),
    CHECKPOINTED,
    Mode(
        "bf16, channels_last, cudnn.benchmark, DDP and SyncBatchNorm, one process",
        sync_bn=True,
        keys=LAST,
    ),
    Mode("fp16, channels_last, cudnn.benchmark", "fp16", keys=LAST),
    COMPILED,
)
FEW_MODES = (PLAIN, BEST, CHECKPOINTED)  # for a dry run


def plan(configs: dict[str, Config], modes: Sequence[Mode]) -> Iterator[tuple[str, Mode]]:
    """Yield (network, mode), the most important first, because time may run out."""
    first, *others = configs
    yield from ((first, mode) for mode in modes if mode is not COMPILED)
    yield from ((name, mode) for name in others for mode in (PLAIN, BEST))
    if COMPILED in modes:
        yield first, COMPILED
        yield from ((name, CHECKPOINTED) for name in others)
        yield from ((name, COMPILED) for name in others)


def run(
    record: Record,
    deadline: Deadline,
    *,
    configs: dict[str, Config],
    device: torch.device,
    modes: Sequence[Mode] = ALL_MODES,
) -> None:
    """Add the rows of as many networks and modes as time allows."""
    side = 8192 if device.type == "cuda" else 256
    ceilings = {kind: product_rate(kind, device, side=side) for kind in DTYPES}
    flop: dict[str, int] = {}
    plain: dict[str, float] = {}
    for name, mode in plan(configs, modes):
        if deadline.left() < mode.likely:
            record.add("step", f"{name}, {mode.name}", note="skipped: no time")
            continue

        def work(name: str = name, mode: Mode = mode) -> dict[str, Any]:
            cfg = mode.apply(configs[name])
            found, costly, work_done = measure(cfg, mode, device)
            flop.setdefault(name, work_done)  # of the plain script, for all modes
            if costly:
                record.add("operators", f"{name}, {mode.name}", shares=costly)
            if mode is PLAIN:
                plain[name] = found["seconds"]
            rate = flop[name] / found["seconds"] / 1e12
            return {
                "images_per_second": cfg.batch_size / found["seconds"],
                **found,
                "speed_up": plain[name] / found["seconds"] if name in plain else None,
                "tflop_per_second": rate,
                "share_of_ceiling": rate / ceilings[mode.kind],
                "gflop_per_image": flop[name] / cfg.batch_size / 1e9,
            }

        guarded(record, "step", f"{name}, {mode.name}", work)
        torch.compiler.reset()
        release(device)


def measure(cfg: Config, mode: Mode, device: torch.device) -> tuple[dict[str, Any], list[str], int]:
    """Return time and memory of a step, the most expensive operators (some modes), and its FLOP."""
    with arithmetic(mode.kind, benchmark=mode.benchmark), surrounding(mode.sync_bn, device):
        # As in a plain script: upsampled maps, no checks, PyTorch's loss.
        plain = PlainStep(replace(cfg, classifier="stepwise"), device) if mode is PLAIN else None
        trainer: Any = plain or Trainer(cfg, device, sync_bn=mode.sync_bn)
        found = measure_steps(trainer, seconds=SECONDS, warm_up=4)
        with FlopCounterMode(display=False) as counter:
            if mode is PLAIN:  # a compiled step's FLOP cannot be counted
                trainer.step()
        costly = operators(trainer.step, device)[:10] if mode in (PLAIN, BEST, COMPILED) else []
    values = {
        "seconds": found.seconds,
        "spread": (found.slowest - found.fastest) / found.seconds,
        "peak_gib": found.peak_gib,
        "reserved_gib": found.reserved_gib,
    }
    return values, [f"{key} {share:.1%}" for key, share in costly], counter.get_total_flops()
