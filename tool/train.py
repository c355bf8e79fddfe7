"""Train a network; logs, scores, checkpoints and images go to TRAIN.save_path."""

import logging
import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from util.error import run_cli  # isort: split

import torch

from util.error import ConfigError  # isort: split

from model import backbone_name, check_network, start_network
from util.config import (
    ROOT,
    Config,
    check_test,
    check_train,
    config_parser,
    dump_config,
    load_config,
)
from util.data.dataset import Loader, SegmentationData, build_loader
from util.distributed import Process, StopRequest, describe, launch
from util.distributed.device import warn_if_busy
from util.extra.dataset_check.counts import median_weights, read_weights
from util.logger import naming, start_logging, write_origin
from util.palette import load_colors
from util.training.batch import batch_norm_images, check_batch
from util.training.checkpoint import checkpoints, is_in
from util.training.errors import explained
from util.training.loss import SegmentationLoss, build_loss
from util.training.profile import flops_per_image
from util.training.resume import read_resume, restore_state
from util.training.run_folder import RunFolder
from util.training.run_logger import TrainLogger
from util.training.seed import seed_everything
from util.training.state import State, order_of, start_state
from util.training.trainer import Trainer

log = logging.getLogger("semseg")


def main() -> None:
    args = config_parser(__doc__).parse_args()
    cfg = load_config(args.config, args.overrides)
    check_train(cfg)
    check_network(cfg)
    if cfg.evaluate and cfg.val_protocol == "test":
        check_test(cfg)
        check_network(cfg, is_test=True)
    start_logging()
    launch(train, cfg, gpus=cfg.train_gpu)


def train(process: Process, cfg: Config) -> None:
    """Run the training in one process."""
    is_main = process.is_main
    start_logging(is_main=is_main)
    check_batch(cfg, process)
    check_network(cfg, batch_norm_images=batch_norm_images(cfg, process))
    folder = RunFolder(cfg.save_path, active=is_main)
    with explained(cfg), StopRequest() as stop, folder:
        cfg, checkpoint = read_resume(cfg, process)
        train_loader, val_loader = make_loaders(cfg, process)
        colors = load_colors(cfg.colors_path, cfg.classes)

        seed_everything(cfg.manual_seed)
        resumed, content = checkpoint or ("", {})
        network = start_network(cfg, resumed, content)
        criterion = make_criterion(cfg, process, network.aux_scales, train_loader.data)
        flops = flops_per_image(network, (cfg.train_h, cfg.train_w)) if is_main else 0.0
        state = start_state(cfg, process, network, steps_per_epoch=len(train_loader))
        order = order_of(cfg, train_loader.data.samples)
        if checkpoint:
            restore_state(state, cfg, checkpoint, order)
        del checkpoint, content  # as large as the network plus its momentum

        is_same_run = not resumed or is_in(resumed, cfg.save_path)
        foreign = frozenset(() if is_same_run else checkpoints(cfg.save_path))
        with TrainLogger(
            cfg.save_path, colors=colors, epochs=state.epoch, active=is_main
        ) as logger:
            if is_main:
                describe_run(cfg, process, state, train_loader.data, resumed)
                warn_if_busy(process.device)
            Trainer(
                cfg,
                process,
                state,
                criterion,
                train_loader,
                val_loader,
                logger,
                stop,
                order,
                foreign,
                flops,
            ).run()


def make_loaders(cfg: Config, process: Process) -> tuple[Loader, Loader | None]:
    """Build this process's loaders of the training list and, with TRAIN.evaluate, val_list."""
    build = partial(
        build_loader,
        cfg,
        rank=process.rank,
        world_size=process.world_size,
        pin_memory=process.device.type == "cuda",
    )
    training = build(is_training=True)
    return training, build(is_training=False, beside=training.data) if cfg.evaluate else None


def make_criterion(
    cfg: Config, process: Process, aux_scales: tuple[float, ...], data: SegmentationData
) -> SegmentationLoss:
    """Build the loss; TRAIN.class_weights `median` counts all labels first."""
    weights = cfg.class_weights or None
    if weights == "median":
        labels = [sample.label for sample in data.samples]
        if process.is_main:
            weights = median_weights(labels, data.label_map, classes=cfg.classes)
        weights = process.broadcast(weights)
    elif isinstance(weights, str):
        weights = read_weights(Path(weights), classes=cfg.classes)
    if weights and not any(weights):
        raise ConfigError(
            "TRAIN.class_weights are all 0, so no pixel would count: give at least one class a "
            "weight above 0"
        )
    return build_loss(
        cfg.loss,
        ignore_label=cfg.ignore_label,
        aux_weight=cfg.aux_weight,
        aux_scales=aux_scales,
        weights=None if weights is None else torch.tensor(weights, device=process.device),
        ohem_threshold=cfg.ohem_threshold,
        ohem_min_kept=cfg.ohem_min_kept,
        all_gather=process.all_gather,
    )


def describe_run(
    cfg: Config, process: Process, state: State, data: SegmentationData, resumed: str
) -> None:
    """Write the config and environment to the run's folder, and log a summary."""
    folder, device = Path(cfg.save_path), describe(process.device)
    with naming(folder / "config.yaml"):
        (folder / "config.yaml").write_text(dump_config(cfg), encoding="utf-8")
    write_origin(folder, root=ROOT, device=device)
    log.info(
        f"{cfg.arch} on {backbone_name(cfg)}, {cfg.classes} classes, {len(data)} images, "
        f"{state.steps_per_epoch} steps per epoch, {device}, processes: {process.world_size}, "
        f"seed {cfg.manual_seed}"
    )
    if resumed:
        done = f" and {state.step_in_epoch} steps" if state.step_in_epoch else ""
        log.info(f"continuing from {resumed}: {state.epoch} of {cfg.epochs} epochs{done} done")
    if state.epoch >= cfg.epochs:
        log.info("nothing to train: raise TRAIN.epochs to continue")


if __name__ == "__main__":
    run_cli(main)
