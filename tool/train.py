"""Train a network as a config says: losses, scores, checkpoints and pictures into save_path."""

import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from model import start_network
from util.checkpoint import find_resume, load_file
from util.config import ROOT, Config, check_train, config_parser, dump_config, load_config
from util.dataset import Loader, SegmentationData, build_loader
from util.doctor import median_weights, read_weights
from util.error import run_cli
from util.logger import Progress, RunLogger, write_origin
from util.loss import SegmentationLoss, build_loss
from util.palette import load_colors
from util.runtime import (
    Runtime,
    StopRequest,
    choose_seed,
    describe,
    launch,
    seed_everything,
    unwrap,
)
from util.training import (
    Guard,
    Keeper,
    State,
    StepResult,
    Tally,
    check_batch,
    explained,
    restore_state,
    start_state,
    train_mode,
    train_step,
    validate,
)


def main() -> None:
    args = config_parser(__doc__).parse_args()
    cfg = load_config(args.config, args.overrides)
    check_train(cfg)
    launch(train, cfg, gpus=cfg.train_gpu)


def train(runtime: Runtime, cfg: Config) -> None:
    """The whole run, in one of its processes."""
    check_batch(cfg, runtime)
    with explained(cfg), StopRequest() as stop:
        resume, content = read_resume(cfg, runtime)
        if cfg.manual_seed is None:
            seed = content.get("seed", choose_seed())
            cfg = replace(cfg, manual_seed=runtime.from_first(seed))
        run = prepare(cfg, runtime, resume, content)
        del content  # as large as the network and its momentum together
        keeper = Keeper(cfg, runtime, run.logger, stop, steps_per_epoch=len(run.train_loader))
        run_epochs(run, keeper)
        run.logger.close()


@dataclass(frozen=True)
class Run:
    """What all parts of a run work with."""

    cfg: Config
    runtime: Runtime
    train_loader: Loader
    val_loader: Loader | None
    criterion: SegmentationLoss
    state: State
    logger: RunLogger


# Before the first step ----------------------------------------------------------------------------


def read_resume(cfg: Config, runtime: Runtime) -> tuple[str, dict[str, Any]]:
    """The checkpoint to go on from and its content, the same file in all processes."""
    resume, content = "", {}
    if runtime.is_main:
        resume, content = find_resume(cfg.resume, cfg.save_path, say=runtime.say)
    resume = runtime.from_first(resume)
    if resume and not runtime.is_main:
        content = load_file(resume)
    return resume, content


def prepare(cfg: Config, runtime: Runtime, resume: str, content: dict[str, Any]) -> Run:
    """Data, loss, network and log of a run, at its start or where `content` left off."""
    place = {
        "rank": runtime.rank,
        "world_size": runtime.world_size,
        "pin_memory": runtime.device.type == "cuda",
    }
    train_loader = build_loader(cfg, is_training=True, **place)
    val_loader = build_loader(cfg, is_training=False, **place) if cfg.evaluate else None
    criterion = make_criterion(cfg, runtime, train_loader.data)
    seed_everything(cfg.manual_seed)
    colors = load_colors(cfg.colors_path, cfg.classes)
    network = start_network(cfg, resume, content, say=runtime.say)
    logger = RunLogger(cfg.save_path, name="train", active=runtime.is_main, colors=colors)
    steps = {"steps_per_epoch": len(train_loader), "say": logger.info}
    state = start_state(cfg, runtime, network, network.param_groups(), **steps)
    if resume:
        restore_state(state, cfg, content, source=resume, **steps)
    if runtime.is_main:
        folder = Path(cfg.save_path)
        (folder / "config.yaml").write_text(dump_config(cfg), encoding="utf-8")
        write_origin(folder, root=ROOT, device=describe(runtime.device))
    logger.info(
        f"{cfg.arch} on ResNet-{cfg.layers}, {cfg.classes} classes, "
        f"{len(train_loader.data)} pictures, {len(train_loader)} steps an epoch, "
        f"{describe(runtime.device)}, processes: {runtime.world_size}, seed {cfg.manual_seed}"
    )
    if resume:
        done = f" and {state.step_in_epoch} steps" if state.step_in_epoch else ""
        logger.info(f"going on from {resume}: {state.epoch} of {cfg.epochs} epochs{done} are done")
    if state.epoch >= cfg.epochs:
        logger.info("nothing to train: raise TRAIN.epochs to go on")
    return Run(cfg, runtime, train_loader, val_loader, criterion, state, logger)


def make_criterion(cfg: Config, runtime: Runtime, data: SegmentationData) -> SegmentationLoss:
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
        weights=None if weights is None else torch.tensor(weights, device=runtime.device),
        ohem_threshold=cfg.ohem_threshold,
        ohem_min_kept=cfg.ohem_min_kept,
        gather=runtime.gather,
    )


# Epochs -------------------------------------------------------------------------------------------


def run_epochs(run: Run, keeper: Keeper) -> None:
    """All epochs that remain: train, score where asked, save."""
    cfg, state = run.cfg, run.state
    total = cfg.epochs * len(run.train_loader)
    progress = Progress(done=state.step, total=total, active=run.logger.active)
    while state.epoch < cfg.epochs:
        record = train_epoch(run, progress, keeper)
        is_best = False
        if run.val_loader is not None:
            scores, record["val_loss"] = validate(
                cfg,
                run.runtime,
                unwrap(state.model),  # each process has its own pictures, and maybe fewer
                run.val_loader,
                amp=state.amp,
                epoch=state.epoch,
                logger=run.logger,
            )
            record["val"] = asdict(scores)
            is_best = scores.miou > state.best_miou
            state.best_miou = max(scores.miou, state.best_miou)
        run.logger.epoch({"epoch": state.epoch, "step": state.step, **record})
        keeper.after_epoch(state, is_best=is_best)


def train_epoch(run: Run, progress: Progress, keeper: Keeper) -> dict[str, Any]:
    """The remaining steps of an epoch; returns their record: mean losses, accuracy, speed."""
    cfg, state, loader = run.cfg, run.state, run.train_loader
    train_mode(state.model, freeze_bn=cfg.freeze_bn)
    guard = Guard(
        run.runtime,
        kind=cfg.nonfinite,
        names_of=lambda step: loader.names(step // len(loader), step % len(loader)),
        warn=run.logger.warning,
    )
    tally = Tally(cfg, run.runtime)
    loader.sampler.start(state.epoch, state.step_in_epoch)
    title = f"Epoch: [{state.epoch + 1}/{cfg.epochs}]"
    steps = len(loader) - state.step_in_epoch
    for i, (image, label) in enumerate(
        progress.steps(loader, length=steps, title=title), state.step_in_epoch + 1
    ):
        result = train_step(
            cfg,
            run.runtime,
            state,
            image,
            label,
            criterion=run.criterion,
            guard=guard,
            total_steps=cfg.epochs * len(loader),
        )
        tally.add(result)
        is_last = i == len(loader)
        is_time = guard.is_time(state.step) or is_last
        if is_time:
            guard.look()
        if i % cfg.print_freq == 0 or is_last:
            report_step(run, f"{title}[{i}/{len(loader)}]", result, tally, progress)
        if not is_last:
            state.step_in_epoch = i
            keeper.after_step(state, may_stop=is_time)
    state.epoch, state.step_in_epoch = state.epoch + 1, 0
    run.logger.pictures(state.epoch, "train", image, result.label, result.pred)
    scores, record = tally.sum()
    run.logger.scores(state.epoch, cfg.epochs, "train", scores)
    return {**record, "lr": result.lr}


def report_step(run: Run, title: str, result: StepResult, tally: Tally, progress: Progress) -> None:
    """A line of the log and TensorBoard's scalars: the step's losses over all processes."""
    total, main, aux = run.runtime.sum(result.losses).tolist()
    run.logger.info(
        f"{title} {progress.line()} MainLoss {main:.4f} AuxLoss {aux:.4f} Loss {total:.4f} "
        f"Accuracy {tally.accuracy():.4f}"
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
