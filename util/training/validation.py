"""Validation during training: on centre crops, or on whole images with the test protocol."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from util.config import Config
from util.data.dataset import Loader
from util.distributed import Process
from util.distributed.device import autocast
from util.inference import build_predictor
from util.metric import ConfusionMatrix, Scores
from util.training.batch import image_on, label_on
from util.training.loss import CrossEntropy, label_at
from util.training.run_logger import TrainLogger


@torch.no_grad()
def validate(
    cfg: Config,
    process: Process,
    network: nn.Module,
    loader: Loader,
    *,
    amp: str,
    epoch: int,
    logger: TrainLogger,
) -> tuple[Scores, float | None]:
    """Return the scores of the loader's list over all processes and, on crops, the mean loss.

    Each image counts once, on any number of processes.
    """
    matrix = ConfusionMatrix(cfg.classes, cfg.ignore_label, device=process.device)
    sums = torch.zeros(2, dtype=torch.float64, device=process.device)  # loss, weight
    network.eval()
    if cfg.val_protocol == "test":
        _count_images(cfg, process, network, loader, matrix, amp=amp, epoch=epoch)
    else:
        images = _count_crops(cfg, process, network, loader, matrix, sums, amp=amp)
        if images:
            logger.images(epoch, "val", *images)
    process.all_reduce(matrix.matrix)
    total, weight = process.all_reduce(sums).tolist()
    scores = matrix.scores()
    logger.scores(epoch, cfg.epochs, "val", scores)
    if cfg.val_protocol == "test":
        return scores, None
    loss = total / max(weight, 1)
    logger.scalars(epoch, val__loss=loss)
    return scores, loss


def _count_crops(
    cfg: Config,
    process: Process,
    network: nn.Module,
    loader: Loader,
    matrix: ConfusionMatrix,
    sums: Tensor,
    *,
    amp: str,
) -> tuple[Tensor, Tensor, Tensor] | None:
    """Count this process's centre crops; return the last batch for display (None: no images)."""
    criterion, batch = CrossEntropy(cfg.ignore_label), None
    loader.sampler.start(0)
    for image, label in loader:
        image = image_on(process.device, image)
        with autocast(process.device, amp):
            logits = network(image).logits
        label = label_on(process.device, label)
        label = label_at(label, network.label_sizes(*label.shape[-2:])[0])  # type: ignore[operator]
        loss, weight, pred = criterion(logits, label)
        sums += torch.stack([loss, weight])
        matrix.update(pred, label)
        batch = image, label, pred
    return batch


def _count_images(
    cfg: Config,
    process: Process,
    network: nn.Module,
    loader: Loader,
    matrix: ConfusionMatrix,
    *,
    amp: str,
    epoch: int,
) -> None:
    """Count whole images, predicted as in tool/test.py and distributed dynamically."""
    once = replace(cfg, test_compile=False)  # the weights change every epoch: not worth compiling
    predictor = build_predictor(once, network, device=process.device, amp=amp)
    for index in process.shared_indices(len(loader.data), name=f"validation {epoch}"):
        image, label = loader.data.load(index)
        matrix.update(predictor.predict(image), label)
