"""benchmark step: a training step of a plain script and of this project in several modes."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from model import backbone_name
from util.config import Config
from util.distributed.device import usable_amp
from util.extra.benchmark.machine import product_rate, wait
from util.extra.benchmark.plain_step import PlainStep
from util.extra.benchmark.race import installed, race
from util.extra.benchmark.record import Record
from util.extra.benchmark.step import Trainer, random_batch, release
from util.extra.golden import fill

SALT = "benchmark"


def run(record: Record, *, cfg: Config, runs: int, device: torch.device) -> None:
    """Add the rows of a plain step, of this project and of another library's network."""
    cfg = replace(cfg, amp="off", channels_last=False, compile=False, classifier="stepwise")
    network = f"{cfg.arch} on {backbone_name(cfg)}, {cfg.train_h}x{cfg.train_w}, batch "
    network += f"{cfg.batch_size}, {cfg.classes} classes"
    modes = {
        "float32, classifier stepwise": cfg,
        "float32": replace(cfg, classifier="fused"),
        "float32, channels_last": replace(cfg, classifier="fused", channels_last=True),
    }
    if usable_amp("bf16", device) == "bf16":
        fast = replace(cfg, classifier="fused", channels_last=True, amp="bf16")
        modes["bf16, channels_last"] = fast
    plain, losses = PlainStep(cfg, device), {}
    prepare(plain.network)
    ways: dict[str, Callable[[], Any]] = {"plain script": plain.step}
    trainers = {name: trainer(mode, device) for name, mode in modes.items()}
    for name, own in trainers.items():
        ways[name] = own.step
    if theirs := other_library(cfg, device):
        ways["segmentation_models_pytorch PSPNet (a smaller network)"] = theirs
    for name, work in ways.items():  # the first step of each starts from the same weights
        losses[name] = float(work().losses[0]) if name in trainers else float(work())
    found = race(ways, runs=runs, device=device)
    flop = trainers["float32, classifier stepwise"].flop()
    ceiling = product_rate("float32", device, side=2048)
    for name, result in found.items():
        rate = flop / result.seconds / 1e12 if "smaller" not in name else None
        record.add(
            "step",
            f"{network}: {name}",
            **result.row(),
            images_per_second=cfg.batch_size / result.seconds,
            first_loss=losses[name],
            tflop_per_second=rate,
            share_of_float32_product=rate and rate / ceiling,
        )
    wait(device)
    release(device)


def trainer(cfg: Config, device: torch.device) -> Trainer:
    """Create a trainer whose network has the common weights and no dropout."""
    own = Trainer(cfg, device)
    prepare(own.state.model)
    return own


def prepare(network: nn.Module) -> nn.Module:
    """Set generated weights and remove dropout, so that losses are comparable."""
    for module in network.modules():
        if isinstance(module, (nn.Dropout, nn.Dropout2d)):
            module.p = 0.0
    return fill(network, SALT)


def other_library(cfg: Config, device: torch.device) -> Callable[[], float] | None:
    """Return a step of segmentation_models_pytorch's PSPNet, whose trunk is shorter."""
    smp = installed("segmentation_models_pytorch")
    if smp is None:
        return None
    network = smp.PSPNet(f"resnet{cfg.layers}", encoder_weights=None, classes=cfg.classes)
    network = network.to(device).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=cfg.base_lr, momentum=cfg.momentum)
    image, label = random_batch(cfg, pinned=False)
    height, width = (-(-side // 8) * 8 for side in image.shape[2:])  # it needs multiples of 8
    image = F.pad(image, (0, width - image.shape[3], 0, height - image.shape[2])).to(device)
    label = label.to(device)

    def step() -> float:
        logits = network(image)[..., : label.shape[1], : label.shape[2]]
        loss = F.cross_entropy(logits, label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step
