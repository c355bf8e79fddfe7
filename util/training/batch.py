"""Splitting a batch among processes and micro-batches, and moving it to the device."""

from functools import cache

import torch
from torch import Tensor

from util.config import Config
from util.data.transform import MEAN, STD
from util.distributed import Process
from util.error import ConfigError


def check_batch(cfg: Config, process: Process) -> None:
    """Raise ConfigError unless the batch can be divided among the processes."""
    parts = process.world_size * cfg.accumulate_steps
    if cfg.batch_size % parts:
        among = f"{process.world_size} processes"
        if cfg.accumulate_steps > 1:
            among += f" x TRAIN.accumulate_steps {cfg.accumulate_steps}"
        raise ConfigError(
            f"TRAIN.batch_size {cfg.batch_size} cannot be divided among {among}: choose a "
            f"multiple of {parts}"
        )
    if cfg.loss == "ohem" and cfg.accumulate_steps > 1:
        raise ConfigError(
            "TRAIN.loss ohem selects the hardest pixels of the whole batch, but "
            f"TRAIN.accumulate_steps {cfg.accumulate_steps} splits the batch: set it to 1"
        )


def batch_norm_images(cfg: Config, process: Process) -> int:
    """Number of images in each BatchNorm statistic during training."""
    is_synchronised = cfg.sync_bn and process.world_size > 1
    parts = cfg.accumulate_steps * (1 if is_synchronised else process.world_size)
    return cfg.batch_size // parts


def image_on(device: torch.device, image: Tensor) -> Tensor:
    """Move images (N, 3, H, W) to the device; uint8 images are normalised there."""
    image = image.to(device, non_blocking=True)
    if image.dtype != torch.uint8:
        return image
    mean, std = _mean_and_std(device)
    return image.float().sub_(mean).div_(std)


def label_on(device: torch.device, label: Tensor) -> Tensor:
    """Move integer labels (N, H, W) to the device and convert them to int64."""
    return label.to(device, non_blocking=True).long()


@cache
def _mean_and_std(device: torch.device) -> tuple[Tensor, Tensor]:
    mean, std = (torch.tensor(values, device=device).view(3, 1, 1) for values in (MEAN, STD))
    return mean, std
