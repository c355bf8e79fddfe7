"""Train for twenty steps and validate on any number of processes, for tests/test_invariance.py.

python tests/helpers/invariance.py OUT.json --config FILE [SECTION.key value ...]

With SMALL=1 in the environment the network is a small one of the same parts.
"""

import json
import os
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from model import start_network
from tests.helpers.small_net import SmallNet
from tool.train import make_criterion
from util.config import Config, load_config
from util.data.dataset import build_loader
from util.distributed import Process, launch
from util.training.run_logger import TrainLogger
from util.training.seed import seed_everything
from util.training.state import start_state
from util.training.step import train_mode, train_step
from util.training.validation import validate

# An untrained network makes of each rounding error half as much again at every step, the more so
# the faster it learns: in one process, too, float32 leaves float64 by 4 % within 20 steps at 0.001.
RATES = {torch.float64: 1e-3, torch.float32: 1e-5}


def run(process: Process, cfg: Config) -> None:
    """Writes {"float64": losses, "float32": losses, "val": scores} to TEST.save_folder."""
    found = {
        str(dtype).removeprefix("torch."): losses(process, replace(cfg, base_lr=rate), dtype)
        for dtype, rate in RATES.items()
    }
    found["val"] = validation(process, cfg)
    if process.is_main:
        Path(cfg.save_folder).write_text(json.dumps(found))


def network_of(cfg: Config, dtype: torch.dtype) -> nn.Module:
    seed_everything(1)
    is_small = os.environ.get("SMALL") == "1"
    network = (
        SmallNet(cfg.classes, zoom_factor=cfg.zoom_factor)
        if is_small
        else start_network(cfg, "", {})
    )
    for module in network.modules():
        if isinstance(module, nn.Dropout2d):
            module.p = 0.0
    return network.to(dtype)


def losses(process: Process, cfg: Config, dtype: torch.dtype) -> list[float]:
    loader = build_loader(cfg, is_training=True, rank=process.rank, world_size=process.world_size)
    network = network_of(cfg, dtype)
    state = start_state(cfg, process, network, steps_per_epoch=len(loader))
    train_mode(state.model, freeze_bn=cfg.freeze_bn)
    criterion = make_criterion(cfg, process, network.aux_scales, loader.data)
    found = []
    for epoch in range(cfg.epochs):
        loader.sampler.start(epoch)
        for image, label in loader:
            result = train_step(cfg, process, state, criterion, image.to(dtype), label)
            found.append(process.all_reduce(result.losses)[0].item())
    return found


def validation(process: Process, cfg: Config) -> dict:
    """Scores of the same untrained weights, in both protocols."""
    loader = build_loader(cfg, is_training=False, rank=process.rank, world_size=process.world_size)
    network = network_of(cfg, torch.float32)
    for module in network.modules():  # otherwise all pixels get the same class
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_var.fill_(0.1)
    logger = TrainLogger(Path(cfg.save_folder).parent, colors=np.zeros((0, 3)), active=False)
    scores, loss = validate(cfg, process, network, loader, amp="off", epoch=1, logger=logger)
    return {**asdict(scores), "loss": loss}


if __name__ == "__main__":
    _, out, _, config, *words = sys.argv
    cfg = load_config(config, [*words, "TEST.save_folder", out])
    launch(run, cfg, gpus=[])
