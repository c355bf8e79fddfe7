"""Train a network as a config says: losses, scores, checkpoints and images into save_path."""

import logging
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from util.error import run_cli  # isort: split

import torch

from model import check_network, start_network
from util.config import ROOT, Config, check_train, config_parser, dump_config, load_config
from util.data.dataset import Loader, SegmentationData, build_loader
from util.distributed import Process, StopRequest, describe, launch
from util.extra.dataset_check.check import median_weights, read_weights
from util.logger import RunLogger, start_logging, write_origin
from util.palette import load_colors
from util.training.batch import batch_norm_images, check_batch
from util.training.errors import explained
from util.training.loss import SegmentationLoss, build_loss
from util.training.seed import seed_everything
from util.training.state import State, read_resume, restore_state, start_state
from util.training.trainer import Trainer

log = logging.getLogger("semseg")


def main() -> None:
    args = config_parser(__doc__).parse_args()
    cfg = load_config(args.config, args.overrides)
    check_train(cfg)
    check_network(cfg)
    start_logging()
    launch(train, cfg, gpus=cfg.train_gpu)


def train(process: Process, cfg: Config) -> None:
    """The whole run, in one of its processes."""
    start_logging(is_main=process.is_main)
    check_batch(cfg, process)
    check_network(cfg, batch_norm_images=batch_norm_images(cfg, process))
    with explained(cfg), StopRequest() as stop:
        cfg, checkpoint = read_resume(cfg, process)
        train_loader = make_loader(cfg, process, is_training=True)
        val_loader = make_loader(cfg, process, is_training=False) if cfg.evaluate else None
        colors = load_colors(cfg.colors_path, cfg.classes)
        seed_everything(cfg.manual_seed)
        network = start_network(cfg, *(checkpoint or ()))
        criterion = make_criterion(cfg, process, train_loader.data)
        state = start_state(cfg, process, network, steps_per_epoch=len(train_loader))
        if checkpoint:
            restore_state(state, cfg, checkpoint)
        resumed = checkpoint.path if checkpoint else ""
        del checkpoint  # as large as the network and its momentum together
        is_main, folder = process.is_main, cfg.save_path
        with RunLogger(folder, name="train", active=is_main, colors=colors) as logger:
            if is_main:
                describe_run(cfg, process, state, train_loader.data, resumed)
            Trainer(cfg, process, state, criterion, train_loader, val_loader, logger, stop).run()


def make_loader(cfg: Config, process: Process, *, is_training: bool) -> Loader:
    """This process's batches of the training or the validation list."""
    return build_loader(
        cfg,
        is_training=is_training,
        rank=process.rank,
        world_size=process.world_size,
        pin_memory=process.device.type == "cuda",
    )


def make_criterion(cfg: Config, process: Process, data: SegmentationData) -> SegmentationLoss:
    """The loss of TRAIN.loss and TRAIN.class_weights; `median` counts all labels first."""
    weights = cfg.class_weights or None
    if weights == "median":
        labels = [sample.label for sample in data.samples]
        weights = median_weights(labels, data.label_map, classes=cfg.classes)
    elif isinstance(weights, str):
        weights = read_weights(Path(weights), classes=cfg.classes)
    return build_loss(
        cfg.loss,
        ignore_label=cfg.ignore_label,
        aux_weight=cfg.aux_weight,
        weights=None if weights is None else torch.tensor(weights, device=process.device),
        ohem_threshold=cfg.ohem_threshold,
        ohem_min_kept=cfg.ohem_min_kept,
        all_gather=process.all_gather,
    )


def describe_run(
    cfg: Config, process: Process, state: State, data: SegmentationData, resumed: str
) -> None:
    """Config and origin into the run's folder, and the first lines of its log."""
    folder, device = Path(cfg.save_path), describe(process.device)
    (folder / "config.yaml").write_text(dump_config(cfg), encoding="utf-8")
    write_origin(folder, root=ROOT, device=device)
    log.info(
        f"{cfg.arch} on {cfg.backbone or f'resnet{cfg.layers}'}, {cfg.classes} classes, "
        f"{len(data)} images, "
        f"{state.steps_per_epoch} steps an epoch, {device}, processes: {process.world_size}, "
        f"seed {cfg.manual_seed}"
    )
    if resumed:
        done = f" and {state.step_in_epoch} steps" if state.step_in_epoch else ""
        log.info(f"continuing from {resumed}: {state.epoch} of {cfg.epochs} epochs{done} are done")
    if state.epoch >= cfg.epochs:
        log.info("nothing to train: raise TRAIN.epochs to continue")


if __name__ == "__main__":
    run_cli(main)
