"""Train a network as a config says: losses, scores, checkpoints and pictures into save_path."""

import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from model import build_model, load_for_finetuning, load_pretrained
from util.checkpoint import find_resume, load_file, load_weights, save_checkpoint, state_dict_of
from util.config import ROOT, Config, check_train, config_parser, dump_config, load_config
from util.dataset import Loader, SegmentationData, build_loader
from util.doctor import median_weights, read_weights
from util.error import CheckpointError, ConfigError, run_cli
from util.logger import Progress, RunLogger, write_origin
from util.loss import SegmentationLoss, build_loss, pick_labels, segmentation_loss
from util.metric import ConfusionMatrix, Scores
from util.palette import load_colors
from util.precision import autocast, usable_amp
from util.runtime import (
    Runtime,
    choose_seed,
    describe,
    launch,
    rng_state,
    seed_everything,
    set_rng_state,
    unwrap,
)
from util.schedule import poly_lr


@dataclass
class State:
    """What a run needs to go on: all that a checkpoint holds."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    amp: str
    epoch: int = 0  # epochs done
    step: int = 0  # steps done
    best_miou: float = -1.0


def main() -> None:
    args = config_parser(__doc__).parse_args()
    cfg = load_config(args.config, args.overrides)
    check_train(cfg)
    launch(
        train,
        (cfg,),
        gpus=cfg.train_gpu,
        nodes=cfg.world_size,
        node_rank=cfg.rank,
        dist_url=cfg.dist_url,
        backend=cfg.dist_backend,
        say=print,
    )


def train(runtime: Runtime, cfg: Config) -> None:
    """The whole run, in one of its processes."""
    check_batch(cfg, runtime)
    resume = find_resume(cfg.resume, cfg.save_path)
    content = load_file(resume) if resume else {}
    if cfg.manual_seed is None:
        seed = content.get("seed", choose_seed())
        cfg = replace(cfg, manual_seed=runtime.from_first(seed))
    place = {
        "rank": runtime.rank,
        "world_size": runtime.world_size,
        "pin_memory": runtime.device.type == "cuda",
    }
    train_loader = build_loader(cfg, is_training=True, **place)
    val_loader = build_loader(cfg, is_training=False, **place) if cfg.evaluate else None
    criterion = make_criterion(cfg, runtime, train_loader.data)
    seed_everything(cfg.manual_seed)
    state = start_state(cfg, runtime, resume, content, steps_per_epoch=len(train_loader))

    colors = load_colors(cfg.colors_path, cfg.classes)
    logger = RunLogger(cfg.save_path, name="train", active=runtime.is_main, colors=colors)
    if runtime.is_main:
        config_file = Path(cfg.save_path) / "config.yaml"
        config_file.write_text(dump_config(cfg), encoding="utf-8")
        write_origin(Path(cfg.save_path), root=ROOT, device=describe(runtime.device))
    logger.info(
        f"{cfg.arch} on ResNet-{cfg.layers}, {cfg.classes} classes, "
        f"{len(train_loader.data)} pictures, {len(train_loader)} steps an epoch, "
        f"{describe(runtime.device)}, processes: {runtime.world_size}, seed {cfg.manual_seed}"
    )
    if resume:
        logger.info(f"going on from {resume}: {state.epoch} of {cfg.epochs} epochs are done")
    if state.epoch >= cfg.epochs:
        logger.info("nothing to train: raise TRAIN.epochs to go on")

    progress = Progress(done=state.step, total=cfg.epochs * len(train_loader))
    while state.epoch < cfg.epochs:
        record = train_epoch(cfg, runtime, state, train_loader, criterion, logger, progress)
        state.epoch += 1
        is_best = False
        if val_loader is not None:
            scores, record["val_loss"] = validate(cfg, runtime, state, val_loader, logger)
            record["val"] = asdict(scores)
            is_best = scores.miou > state.best_miou
            state.best_miou = max(scores.miou, state.best_miou)
        logger.epoch({"epoch": state.epoch, "step": state.step, **record})
        is_due = state.epoch % cfg.save_freq == 0 or state.epoch == cfg.epochs
        if runtime.is_main and (is_due or is_best):
            content = checkpoint_of(state, cfg)
            for path in save_checkpoint(cfg.save_path, content, is_due=is_due, is_best=is_best):
                logger.info(f"saved {path}")
    logger.close()


# Before the first step ----------------------------------------------------------------------------


def check_batch(cfg: Config, runtime: Runtime) -> None:
    """Raise ConfigError unless the batch can be divided and BatchNorm has something to average."""
    if cfg.batch_size % runtime.world_size:
        raise ConfigError(
            f"TRAIN.batch_size {cfg.batch_size} cannot be divided among {runtime.world_size} "
            f"processes: choose a multiple of {runtime.world_size}"
        )
    # PSPNet's 1x1 bin leaves one value per channel and picture, and BatchNorm needs two.
    alone = cfg.batch_size == runtime.world_size and not (cfg.sync_bn and runtime.world_size > 1)
    if cfg.arch == "psp" and alone:
        raise ConfigError(
            f"TRAIN.batch_size {cfg.batch_size} gives each process one picture, but BatchNorm in "
            f"PSPNet's 1x1 bin needs two: set batch_size {2 * runtime.world_size} or more"
        )


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
        ohem_min_kept=max(1, cfg.ohem_min_kept // runtime.world_size),
    )


def start_state(
    cfg: Config, runtime: Runtime, resume: str, content: dict[str, Any], *, steps_per_epoch: int
) -> State:
    """Model and optimizer at the start, or where the `content` of the file `resume` left off."""
    if resume:
        weights = state_dict_of(content, source=resume)
        network = build_model(cfg, state=weights)
        load_weights(network, weights, source=resume)
    elif cfg.weight:
        network, skipped = load_for_finetuning(cfg)
        if skipped and runtime.is_main:
            print(f"TRAIN.weight has another number of classes: {', '.join(skipped)} start random")
    else:
        network = load_pretrained(cfg)
    model = runtime.wrap(network, sync_bn=cfg.sync_bn, channels_last=cfg.channels_last)
    optimizer = torch.optim.SGD(
        unwrap(model).param_groups(),
        lr=cfg.base_lr,
        momentum=cfg.momentum,
        weight_decay=cfg.weight_decay,
    )
    amp = usable_amp(cfg.amp, runtime.device, say=print)
    scaler = torch.amp.GradScaler(runtime.device.type, enabled=amp == "fp16")
    first_step = cfg.start_epoch * steps_per_epoch
    state = State(model, optimizer, scaler, amp, cfg.start_epoch, first_step)
    if resume:
        try:
            optimizer.load_state_dict(content["optimizer"])
            state.epoch = content["epoch"]
        except (KeyError, ValueError):
            raise CheckpointError(
                f"{resume} has no optimizer state of this network: start from its weights with "
                f"TRAIN.weight {resume} instead of TRAIN.resume"
            ) from None
        state.step = state.epoch * steps_per_epoch
        state.best_miou = content.get("best_miou", -1.0)
        if content.get("scaler"):
            scaler.load_state_dict(content["scaler"])
        if "rng" in content:
            set_rng_state(content["rng"])
    return state


def checkpoint_of(state: State, cfg: Config) -> dict[str, Any]:
    """All that a resumed run needs, in tensors, numbers and text."""
    return {
        "epoch": state.epoch,
        "step": state.step,
        "seed": cfg.manual_seed,
        "state_dict": unwrap(state.model).state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "scaler": state.scaler.state_dict(),
        "best_miou": state.best_miou,
        "rng": rng_state(),
        "config": dump_config(cfg),
    }


# One epoch ----------------------------------------------------------------------------------------


def train_epoch(
    cfg: Config,
    runtime: Runtime,
    state: State,
    loader: Loader,
    criterion: SegmentationLoss,
    logger: RunLogger,
    progress: Progress,
) -> dict[str, float]:
    """All steps of an epoch; returns its record: mean losses, accuracy, learning rate, speed."""
    state.model.train()
    total_steps = cfg.epochs * len(loader)
    matrix = ConfusionMatrix(cfg.classes, cfg.ignore_label, device=runtime.device)
    loss_sums = torch.zeros(3, device=runtime.device)  # total, main, aux
    loader.sampler.start(state.epoch)
    title, start = f"Epoch: [{state.epoch + 1}/{cfg.epochs}]", time.perf_counter()
    lr = cfg.base_lr
    for i, (image, label) in enumerate(progress.steps(loader, length=len(loader), title=title), 1):
        lr = poly_lr(cfg.base_lr, state.step, total_steps, cfg.power)
        for group in state.optimizer.param_groups:
            group["lr"] = lr * group["lr_scale"]
        image = image.to(runtime.device, non_blocking=True)
        label = pick_labels(label.to(runtime.device, non_blocking=True), cfg.zoom_factor)
        with autocast(runtime.device, state.amp):
            output = state.model(image)
        losses = criterion(*output, label)
        state.optimizer.zero_grad(set_to_none=True)
        state.scaler.scale(losses[0]).backward()
        state.scaler.step(state.optimizer)
        state.scaler.update()
        state.step += 1

        pred = output.logits.argmax(dim=1)
        matrix.update(pred, label)
        loss_sums += torch.stack(losses).detach()
        if i % cfg.print_freq == 0 or i == len(loader):
            total, main, aux = (x.item() for x in losses)
            logger.info(
                f"{title}[{i}/{len(loader)}] {progress.line()} MainLoss {main:.4f} "
                f"AuxLoss {aux:.4f} Loss {total:.4f} Accuracy {matrix.scores().aacc:.4f}"
            )
            images_s = cfg.batch_size / max(progress.batch.last, 1e-9)
            logger.scalars(state.step, loss__total=total, loss__main=main, loss__aux=aux, lr=lr)
            logger.scalars(state.step, speed__images_per_second=images_s)
    logger.pictures(state.epoch + 1, "train", image, label, pred)
    runtime.sum(matrix.matrix)
    scores = matrix.scores()
    logger.scores(state.epoch + 1, cfg.epochs, "train", scores)
    total, main, aux = (runtime.sum(loss_sums) / (len(loader) * runtime.world_size)).tolist()
    return {
        "train_loss": total,
        "main_loss": main,
        "aux_loss": aux,
        "train_miou": scores.miou,
        "train_aacc": scores.aacc,
        "lr": lr,
        "images_per_second": len(loader) * cfg.batch_size / (time.perf_counter() - start),
    }


@torch.no_grad()
def validate(
    cfg: Config, runtime: Runtime, state: State, loader: Loader, logger: RunLogger
) -> tuple[Scores, float]:
    """Scores on centre crops of the validation list, and the mean loss of its pictures."""
    network = unwrap(state.model).eval()  # each process has its own pictures, and maybe fewer
    matrix = ConfusionMatrix(cfg.classes, cfg.ignore_label, device=runtime.device)
    loss_sum = torch.zeros(2, device=runtime.device)  # sum over pictures, pictures
    loader.sampler.start(0)
    for image, label in loader:
        image = image.to(runtime.device, non_blocking=True)
        label = pick_labels(label.to(runtime.device, non_blocking=True), cfg.zoom_factor)
        with autocast(runtime.device, state.amp):
            logits = network(image).logits
        loss = segmentation_loss(
            logits, logits, label, ignore_label=cfg.ignore_label, aux_weight=0.0
        )[1]
        loss_sum += torch.stack([loss, torch.ones_like(loss)]) * len(image)
        pred = logits.argmax(dim=1)
        matrix.update(pred, label)
    logger.pictures(state.epoch, "val", image, label, pred)
    runtime.sum(matrix.matrix)
    total, count = runtime.sum(loss_sum).tolist()
    scores = matrix.scores()
    logger.scores(state.epoch, cfg.epochs, "val", scores)
    logger.scalars(state.epoch, val__loss=total / count)
    return scores, total / count


if __name__ == "__main__":
    run_cli(main)
