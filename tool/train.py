"""Train a network as a config says: losses, scores, checkpoints and pictures into save_path."""

import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from model.state import State, checkpoint_of, start_state
from util.checkpoint import find_resume, save_checkpoint
from util.config import ROOT, Config, check_train, config_parser, dump_config, load_config
from util.dataset import Loader, SegmentationData, build_loader
from util.doctor import median_weights, read_weights
from util.error import EXIT_STOPPED, ConfigError, run_cli
from util.logger import Progress, RunLogger, write_origin
from util.loss import SegmentationLoss, build_loss, pick_labels, segmentation_loss
from util.metric import ConfusionMatrix, Scores
from util.palette import load_colors
from util.precision import autocast
from util.runtime import (
    Runtime,
    StopRequest,
    choose_seed,
    describe,
    launch,
    seed_everything,
    unwrap,
)
from util.schedule import poly_lr

STEPS_BETWEEN_AGREEMENTS = 10


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
    resume, content = find_resume(cfg.resume, cfg.save_path, say=print)
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
        steps = f" and {state.step_in_epoch} steps" if state.step_in_epoch else ""
        logger.info(f"going on from {resume}: {state.epoch} of {cfg.epochs} epochs{steps} are done")
    if state.epoch >= cfg.epochs:
        logger.info("nothing to train: raise TRAIN.epochs to go on")

    loaders = [train_loader] if val_loader is None else [train_loader, val_loader]
    with StopRequest() as stop:
        keeper = Keeper(cfg, runtime, logger, stop)
        run_epochs(cfg, runtime, state, loaders, criterion, logger, keeper)
    logger.close()


def run_epochs(
    cfg: Config,
    runtime: Runtime,
    state: State,
    loaders: list[Loader],
    criterion: SegmentationLoss,
    logger: RunLogger,
    keeper: "Keeper",
) -> None:
    """All epochs that remain: train, score with the second loader where there is one, save."""
    train_loader, *val_loaders = loaders
    progress = Progress(done=state.step, total=cfg.epochs * len(train_loader))
    while state.epoch < cfg.epochs:
        record = train_epoch(cfg, runtime, state, train_loader, criterion, logger, progress, keeper)
        is_best = False
        for val_loader in val_loaders:
            scores, record["val_loss"] = validate(cfg, runtime, state, val_loader, logger)
            record["val"] = asdict(scores)
            is_best = scores.miou > state.best_miou
            state.best_miou = max(scores.miou, state.best_miou)
        logger.epoch({"epoch": state.epoch, "step": state.step, **record})
        keeper.after_epoch(state, is_best=is_best)


class Keeper:
    """Saves the state when it is due, and ends the run when a signal asks for it."""

    def __init__(self, cfg: Config, runtime: Runtime, logger: RunLogger, stop: StopRequest) -> None:
        self.cfg, self.runtime, self.logger, self.stop = cfg, runtime, logger, stop
        self.saved_at = time.monotonic()

    def after_step(self, state: State) -> None:
        """Within an epoch: every so many steps or minutes, and when a signal came."""
        cfg = self.cfg
        # Several processes must agree, which costs a message: they ask now and then.
        asks = self.runtime.world_size == 1 or state.step % STEPS_BETWEEN_AGREEMENTS == 0
        must_end = asks and self.runtime.any(bool(self.stop.name))
        by_steps = cfg.save_every_steps and state.step % cfg.save_every_steps == 0
        minutes = (time.monotonic() - self.saved_at) / 60
        by_minutes = cfg.save_every_minutes and minutes >= cfg.save_every_minutes
        if must_end or by_steps or by_minutes:
            self._save(state)
        if must_end:
            self._end()

    def after_epoch(self, state: State, *, is_best: bool) -> None:
        """Every save_freq epochs, after the last one, for the best score, and for a signal."""
        is_last = state.epoch == self.cfg.epochs
        must_end = self.runtime.any(bool(self.stop.name)) and not is_last
        is_due = is_last or must_end or state.epoch % self.cfg.save_freq == 0
        self._save(state, is_due=is_due, is_best=is_best)
        if must_end:
            self._end()

    def _save(self, state: State, *, is_due: bool = True, is_best: bool = False) -> None:
        if self.runtime.is_main and (is_due or is_best):
            content = checkpoint_of(state, self.cfg)
            folder = self.cfg.save_path
            for path in save_checkpoint(folder, content, is_due=is_due, is_best=is_best):
                self.logger.info(f"saved {path}")
        self.saved_at = time.monotonic()

    def _end(self) -> None:
        name = self.stop.name or "a signal to another process"
        self.logger.info(f"stopped by {name}; the same command with TRAIN.resume auto goes on")
        self.logger.close()
        sys.exit(EXIT_STOPPED)


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


# One epoch ----------------------------------------------------------------------------------------


def train_epoch(
    cfg: Config,
    runtime: Runtime,
    state: State,
    loader: Loader,
    criterion: SegmentationLoss,
    logger: RunLogger,
    progress: Progress,
    keeper: Keeper,
) -> dict[str, float]:
    """The remaining steps of an epoch; returns their record: mean losses, accuracy, speed."""
    state.model.train()
    total_steps = cfg.epochs * len(loader)
    matrix = ConfusionMatrix(cfg.classes, cfg.ignore_label, device=runtime.device)
    loss_sums = torch.zeros(3, device=runtime.device)  # total, main, aux
    first = state.step_in_epoch
    steps = len(loader) - first
    loader.sampler.start(state.epoch, first)
    title, start = f"Epoch: [{state.epoch + 1}/{cfg.epochs}]", time.perf_counter()
    lr = cfg.base_lr
    for i, (image, label) in enumerate(
        progress.steps(loader, length=steps, title=title), first + 1
    ):
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
        if i < len(loader):
            state.step_in_epoch = i
            keeper.after_step(state)
    state.epoch, state.step_in_epoch = state.epoch + 1, 0
    logger.pictures(state.epoch, "train", image, label, pred)
    runtime.sum(matrix.matrix)
    scores = matrix.scores()
    logger.scores(state.epoch, cfg.epochs, "train", scores)
    total, main, aux = (runtime.sum(loss_sums) / (steps * runtime.world_size)).tolist()
    return {
        "train_loss": total,
        "main_loss": main,
        "aux_loss": aux,
        "train_miou": scores.miou,
        "train_aacc": scores.aacc,
        "lr": lr,
        "steps": steps,
        "images_per_second": steps * cfg.batch_size / (time.perf_counter() - start),
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
    if len(loader):  # a process may have no picture at all
        logger.pictures(state.epoch, "val", image, label, pred)
    runtime.sum(matrix.matrix)
    total, count = runtime.sum(loss_sum).tolist()
    scores = matrix.scores()
    logger.scores(state.epoch, cfg.epochs, "val", scores)
    logger.scalars(state.epoch, val__loss=total / count)
    return scores, total / count


if __name__ == "__main__":
    run_cli(main)
