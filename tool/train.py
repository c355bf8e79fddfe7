"""Train a network as a config says: losses, scores, checkpoints and images into save_path."""

import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from model import check_network, start_network
from util.checkpoint import find_resume, load_file
from util.config import ROOT, Config, check_train, config_parser, dump_config, load_config
from util.data.dataset import Loader, SegmentationData, build_loader
from util.distributed import Process, StopRequest, describe, launch, unwrap
from util.error import run_cli
from util.extra.dataset_check.check import median_weights, read_weights
from util.logger import Progress, RunLogger, write_origin
from util.palette import load_colors
from util.training import (
    CheckpointSaver,
    EpochStatistics,
    NonfiniteCheck,
    State,
    StepResult,
    batch_norm_images,
    check_batch,
    explained,
    restore_state,
    start_state,
    train_mode,
    train_step,
    validate,
)
from util.training.loss import SegmentationLoss, build_loss
from util.training.seed import choose_seed, seed_everything


def main() -> None:
    args = config_parser(__doc__).parse_args()
    cfg = load_config(args.config, args.overrides)
    check_train(cfg)
    check_network(cfg)
    launch(train, cfg, gpus=cfg.train_gpu)


def train(process: Process, cfg: Config) -> None:
    """The whole run, in one of its processes."""
    check_batch(cfg, process)
    check_network(cfg, batch_norm_images=batch_norm_images(cfg, process))
    with explained(cfg), StopRequest() as stop:
        resume, content = read_resume(cfg, process)
        if cfg.manual_seed is None:
            seed = content.get("seed", choose_seed())
            cfg = replace(cfg, manual_seed=process.broadcast(seed))
        run = prepare(cfg, process, resume, content)
        del content  # as large as the network and its momentum together
        saver = CheckpointSaver(
            cfg, process, run.logger, stop, steps_per_epoch=len(run.train_loader)
        )
        run_epochs(run, saver)
        run.logger.close()


@dataclass(frozen=True)
class Run:
    """What all parts of a run work with."""

    cfg: Config
    process: Process
    train_loader: Loader
    val_loader: Loader | None
    criterion: SegmentationLoss
    state: State
    logger: RunLogger


# Before the first step ----------------------------------------------------------------------------


def read_resume(cfg: Config, process: Process) -> tuple[str, dict[str, Any]]:
    """The checkpoint to go on from and its content, the same file in all processes."""
    resume, content = "", {}
    if process.is_main:
        resume, content = find_resume(cfg.resume, cfg.save_path, say=process.say)
    resume = process.broadcast(resume)
    if resume and not process.is_main:
        content = load_file(resume)
    return resume, content


def prepare(cfg: Config, process: Process, resume: str, content: dict[str, Any]) -> Run:
    """Data, loss, network and log of a run, at its start or where `content` left off."""
    place = {
        "rank": process.rank,
        "world_size": process.world_size,
        "pin_memory": process.device.type == "cuda",
    }
    train_loader = build_loader(cfg, is_training=True, **place)
    val_loader = build_loader(cfg, is_training=False, **place) if cfg.evaluate else None
    criterion = make_criterion(cfg, process, train_loader.data)
    seed_everything(cfg.manual_seed)
    colors = load_colors(cfg.colors_path, cfg.classes)
    network = start_network(cfg, resume, content, say=process.say)
    logger = RunLogger(cfg.save_path, name="train", active=process.is_main, colors=colors)
    steps = {"steps_per_epoch": len(train_loader), "say": logger.info}
    state = start_state(cfg, process, network, network.param_groups(), **steps)
    if resume:
        restore_state(state, cfg, content, source=resume, **steps)
    if process.is_main:
        folder = Path(cfg.save_path)
        (folder / "config.yaml").write_text(dump_config(cfg), encoding="utf-8")
        write_origin(folder, root=ROOT, device=describe(process.device))
    logger.info(
        f"{cfg.arch} on ResNet-{cfg.layers}, {cfg.classes} classes, "
        f"{len(train_loader.data)} images, {len(train_loader)} steps an epoch, "
        f"{describe(process.device)}, processes: {process.world_size}, seed {cfg.manual_seed}"
    )
    if resume:
        done = f" and {state.step_in_epoch} steps" if state.step_in_epoch else ""
        logger.info(f"going on from {resume}: {state.epoch} of {cfg.epochs} epochs{done} are done")
    if state.epoch >= cfg.epochs:
        logger.info("nothing to train: raise TRAIN.epochs to go on")
    return Run(cfg, process, train_loader, val_loader, criterion, state, logger)


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
        gather=process.all_gather,
    )


# Epochs -------------------------------------------------------------------------------------------


def run_epochs(run: Run, saver: CheckpointSaver) -> None:
    """All epochs that remain: train, score where asked, save."""
    cfg, state = run.cfg, run.state
    total = cfg.epochs * len(run.train_loader)
    progress = Progress(done=state.step, total=total, active=run.logger.active)
    while state.epoch < cfg.epochs:
        record = train_epoch(run, progress, saver)
        is_best = False
        if run.val_loader is not None:
            scores, record["val_loss"] = validate(
                cfg,
                run.process,
                unwrap(state.model),  # each process has its own images, and maybe fewer
                run.val_loader,
                amp=state.amp,
                epoch=state.epoch,
                logger=run.logger,
            )
            record["val"] = asdict(scores)
            is_best = scores.miou > state.best_miou
            state.best_miou = max(scores.miou, state.best_miou)
        run.logger.epoch({"epoch": state.epoch, "step": state.step, **record})
        saver.after_epoch(state, is_best=is_best)


def train_epoch(run: Run, progress: Progress, saver: CheckpointSaver) -> dict[str, Any]:
    """The remaining steps of an epoch; returns their record: mean losses, accuracy, speed."""
    cfg, state, loader = run.cfg, run.state, run.train_loader
    train_mode(state.model, freeze_bn=cfg.freeze_bn)
    nonfinite = NonfiniteCheck(
        run.process,
        kind=cfg.nonfinite,
        names_of=lambda step: loader.names(step // len(loader), step % len(loader)),
        warn=run.logger.warning,
    )
    statistics = EpochStatistics(cfg, run.process)
    loader.sampler.start(state.epoch, state.step_in_epoch)
    title = f"Epoch: [{state.epoch + 1}/{cfg.epochs}]"
    steps = len(loader) - state.step_in_epoch
    for i, (image, label) in enumerate(
        progress.steps(loader, length=steps, title=title), state.step_in_epoch + 1
    ):
        result = train_step(
            cfg,
            run.process,
            state,
            image,
            label,
            criterion=run.criterion,
            nonfinite=nonfinite,
            total_steps=cfg.epochs * len(loader),
        )
        statistics.add(result)
        is_last = i == len(loader)
        is_time = nonfinite.is_time(state.step) or is_last
        if is_time:
            nonfinite.look()
        if i % cfg.print_freq == 0 or is_last:
            report_step(run, f"{title}[{i}/{len(loader)}]", result, statistics, progress)
        if not is_last:
            state.step_in_epoch = i
            saver.after_step(state, may_stop=is_time)
    state.epoch, state.step_in_epoch = state.epoch + 1, 0
    run.logger.images(state.epoch, "train", image, result.label, result.pred)
    scores, record = statistics.sum()
    run.logger.scores(state.epoch, cfg.epochs, "train", scores)
    return {**record, "lr": result.lr}


def report_step(
    run: Run, title: str, result: StepResult, statistics: EpochStatistics, progress: Progress
) -> None:
    """A line of the log and TensorBoard's scalars: the step's losses over all processes."""
    total, main, aux = run.process.all_reduce(result.losses).tolist()
    run.logger.info(
        f"{title} {progress.line()} MainLoss {main:.4f} AuxLoss {aux:.4f} Loss {total:.4f} "
        f"Accuracy {statistics.accuracy():.4f}"
    )
    run.logger.scalars(
        run.state.step,
        loss__total=total,
        loss__main=main,
        loss__aux=aux,
        lr=result.lr,
        speed__images_per_second=run.cfg.batch_size / max(progress.batch.last, 1e-9),
    )


if __name__ == "__main__":
    run_cli(main)
