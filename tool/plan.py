"""Estimate what a recipe needs on this machine: memory by batch size, time, disk, loader workers.

Runs a few real training steps, also with keys that save memory.
"""

import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from util.error import run_cli  # isort: split

import torch

from model import check_network
from util.config import Config, check_test, check_train, config_parser, load_config
from util.distributed import describe, single_device
from util.evaluation.protocol import tested_images
from util.extra import plan
from util.extra.benchmark.parts import apart
from util.training.checkpoint import KEEP


def main() -> None:
    args = config_parser(__doc__).parse_args()
    cfg = load_config(args.config, args.overrides)
    check_train(cfg)
    check_test(cfg)
    check_network(cfg)
    samples, _ = tested_images(cfg)
    device = apart(partial(single_device, cfg.train_gpu))  # this process must not touch the GPU
    assert isinstance(device, torch.device)
    load, images = plan.loading_seconds(cfg)
    size, total = cfg.batch_size, apart(partial(plan.memory_gib, device))
    assert isinstance(total, float)
    usable = plan.USABLE * total
    line = plan.step_line(cfg, device, usable_gib=usable)
    own = line.at(size)
    name = apart(partial(describe, device))
    print(f"{name}, {total:.1f} GiB; {images} training images; batch size {size}")
    report_memory(cfg, line, total)
    print(
        f"measured: batch sizes {line.low.batch_size} and {line.high.batch_size}; the others are "
        "estimated"
    )
    report_time(cfg, own, load, images)
    seconds = plan.test_seconds(cfg, device, samples[0])
    minutes = seconds * len(samples) / 60
    print(
        f"test: {seconds:.2f} s/image at scales {cfg.scales}, {minutes:.1f} min for {len(samples)}"
    )
    disk = plan.checkpoint_bytes(cfg) / 2**20
    kept = KEEP + cfg.evaluate  # and best.pth
    print(f"disk: {disk:.0f} MiB/checkpoint, {kept * disk:.0f} MiB for the {kept} kept")
    report_savings(cfg, device, own, usable_gib=usable)


def report_memory(cfg: Config, line: plan.Line, total: float) -> None:
    """Print memory and speed by batch size."""
    print(f"\n{'batch size':>10} {'memory GiB':>10} {'s/step':>8} {'images/s':>8}")
    for size in plan.batch_sizes(cfg):
        cost = line.at(size)
        note = "  <- this recipe" if size == cfg.batch_size else ""
        if cost.gib > total:
            note += "  does not fit"
        print(
            f"{size:>10} {cost.gib:>10.2f} {cost.seconds:>8.3f} {size / cost.seconds:>8.2f}{note}"
        )


def report_time(cfg: Config, own: plan.Cost, load: float, images: int) -> None:
    """Print the time of an epoch and of the run, and the loader workers this needs."""
    found = plan.schedule(cfg, own, load, images)
    print(
        f"\ntime: {found['steps_per_epoch']} steps/epoch of {found['seconds_per_step']:.3f} s: "
        f"{found['seconds_per_epoch']:.0f} s/epoch; {found['hours']:.2f} h for {cfg.epochs} epochs"
    )
    needed = found["workers_needed"]
    print(
        f"loader: {load * 1000:.1f} ms per image on one core; {needed} workers keep the device "
        f"busy, TRAIN.workers is {cfg.workers}"
    )
    if needed > cfg.workers and cfg.augment == "stepwise":
        print("        TRAIN.augment fused takes a fraction of that")


def report_savings(cfg: Config, device: torch.device, own: plan.Cost, *, usable_gib: float) -> None:
    """Print what each memory-saving key that the recipe does not use would save."""
    print("\nto save memory, cumulatively:")
    for words, line in plan.savings(cfg, device, usable_gib=usable_gib):
        cost = line.at(cfg.batch_size)
        print(
            f"  TRAIN: {words}: {cost.gib:.2f} GiB ({cost.gib / own.gib - 1:+.0%}), "
            f"{cost.seconds:.3f} s/step ({cost.seconds / own.seconds - 1:+.0%})"
        )
    parts = min(2, cfg.batch_size)
    print(f"  TRAIN.accumulate_steps {parts}: the memory of batch size {cfg.batch_size // parts}")


if __name__ == "__main__":
    run_cli(main)
