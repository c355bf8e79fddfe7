"""The training loop: epochs, steps, validation, logging, checkpoints."""

import logging
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from util.config import Config
from util.data.dataset import Loader
from util.distributed import Process, StopRequest, unwrap
from util.error import EXIT_STOPPED
from util.inference.network import gpu_flags
from util.logger import Progress
from util.training.checkpoint import save_checkpoint
from util.training.loss import SegmentationLoss
from util.training.nonfinite import STEPS_BETWEEN_LOOKS, NonfiniteCheck
from util.training.profile import StepProfiler
from util.training.run_logger import TrainLogger
from util.training.state import State, checkpoint_content
from util.training.statistics import EpochStatistics
from util.training.step import StepResult, train_mode, train_step
from util.training.validation import validate

log = logging.getLogger("semseg")


@dataclass
class Trainer:
    """Trains a state up to TRAIN.epochs, in each process of the run.

    `order` (see order_of) is saved in checkpoints, `foreign` checkpoints belong to another run and
    are never deleted, `flops` is the cost of a step per image.
    """

    cfg: Config
    process: Process
    state: State
    criterion: SegmentationLoss
    train_loader: Loader
    val_loader: Loader | None  # None: no validation
    logger: TrainLogger
    stop: StopRequest
    order: Mapping[str, Any]
    foreign: frozenset[Path] = frozenset()
    flops: float = 0.0

    def __post_init__(self) -> None:
        self.saved_at = time.monotonic()
        profiled = self.cfg.profile if self.process.is_main else 0
        self.profiler = StepProfiler(profiled, self.cfg.save_path, self.process.device)
        self.progress = Progress(
            done=self.state.step, total=self.state.total_steps, active=self.process.is_main
        )

    def run(self) -> None:
        """Train, validate and save for each remaining epoch."""
        state = self.state
        while state.epoch < self.cfg.epochs:
            with gpu_flags(self.process.device, tf32=state.amp == "tf32", tune=True):
                record = self.train_epoch()
                is_best = self.val_loader is not None and self.score(record, self.val_loader)
            self.logger.epoch({"epoch": state.epoch, "step": state.step, **record})
            self.save_after_epoch(is_best=is_best)
        self.profiler.close()

    def train_epoch(self) -> dict[str, Any]:
        """Run the remaining steps of an epoch; return mean losses, accuracy and speed."""
        cfg, state, loader = self.cfg, self.state, self.train_loader
        train_mode(state.model, freeze_bn=cfg.freeze_bn)
        nonfinite = NonfiniteCheck(cfg, self.process, loader, amp=state.amp)
        statistics = EpochStatistics(cfg, self.process, amp=state.amp, flops=self.flops)
        loader.sampler.start(state.epoch, state.step_in_epoch)
        title = f"Epoch: [{state.epoch + 1}/{cfg.epochs}]"
        steps = state.steps_per_epoch - state.step_in_epoch
        for image, label in self.progress.steps(loader, length=steps, title=title):
            result = train_step(cfg, self.process, state, self.criterion, image, label)
            self.profiler.step()
            nonfinite.add(state.step - 1, result.losses[0], result.left_out)
            statistics.add(result, waited=self.progress.data.last)
            is_last = state.step_in_epoch == state.steps_per_epoch
            may_wait = self.process.reads_are_free or state.step % STEPS_BETWEEN_LOOKS == 0
            if may_wait or is_last:
                nonfinite.look()
            if state.step_in_epoch % cfg.print_freq == 0 or is_last:
                place = f"{title}[{state.step_in_epoch}/{state.steps_per_epoch}]"
                self.report_step(place, result, statistics)
            if not is_last:
                self.save_within_epoch(may_stop=may_wait)
        state.epoch, state.step_in_epoch = state.epoch + 1, 0
        self.logger.images(state.epoch, "train", image, result.label, result.pred)
        scores, record = statistics.sum()
        self.logger.scores(state.epoch, cfg.epochs, "train", scores)
        self.logger.speed(state.epoch, cfg.epochs, record)
        return {**record, "lr": result.lr}

    def report_step(self, place: str, result: StepResult, statistics: EpochStatistics) -> None:
        """Log a step's losses over all processes, also to TensorBoard."""
        total, main, aux = self.process.all_reduce(result.losses).tolist()
        log.info(
            f"{place} {self.progress.line()} MainLoss {main:.4f} AuxLoss {aux:.4f} "
            f"Loss {total:.4f} Accuracy {statistics.accuracy():.4f}"
        )
        self.logger.scalars(
            self.state.step,
            loss__total=total,
            loss__main=main,
            loss__aux=aux,
            lr=result.lr,
            speed__images_per_second=statistics.images_per_second(),
        )

    def score(self, record: dict[str, Any], loader: Loader) -> bool:
        """Validate and add the scores to the epoch's record; return whether it is the best."""
        state = self.state
        network = unwrap(state.model)  # no DDP: processes may have different numbers of images
        self.process.broadcast_buffers(network)  # without sync_bn each has its own statistics
        scores, record["val_loss"] = validate(
            self.cfg,
            self.process,
            network,
            loader,
            amp=state.amp,
            epoch=state.epoch,
            logger=self.logger,
        )
        record["val"] = asdict(scores)
        is_best = scores.miou > state.best_miou
        state.best_miou = max(scores.miou, state.best_miou)
        return is_best

    def save_within_epoch(self, *, may_stop: bool) -> None:
        """Save if due by steps or minutes; if `may_stop`, also on a signal, and then exit.

        Whether to stop is agreed among all processes, so all must call this at the same steps.
        """
        cfg, state = self.cfg, self.state
        must_end = may_stop and self.process.any_rank(bool(self.stop.name))
        by_steps = cfg.save_every_steps and state.step % cfg.save_every_steps == 0
        minutes = (time.monotonic() - self.saved_at) / 60
        by_minutes = cfg.save_every_minutes and minutes >= cfg.save_every_minutes
        if must_end or by_steps or by_minutes:
            self.save()
        if must_end:
            self.end()

    def save_after_epoch(self, *, is_best: bool) -> None:
        """Save every save_freq epochs, after the last epoch, on a best score or a signal."""
        cfg, state = self.cfg, self.state
        is_last = state.epoch == cfg.epochs
        must_end = self.process.any_rank(bool(self.stop.name)) and not is_last
        is_due = is_last or must_end or state.epoch % cfg.save_freq == 0
        self.save(is_due=is_due, is_best=is_best)
        if must_end:
            self.end()

    def save(self, *, is_due: bool = True, is_best: bool = False) -> None:
        """Write the due checkpoint files in the main process."""
        if self.process.is_main and (is_due or is_best):
            content = checkpoint_content(self.state, self.cfg, self.order)
            for path in save_checkpoint(
                self.cfg.save_path,
                content,
                is_due=is_due,
                is_best=is_best,
                foreign=self.foreign,
            ):
                log.info(f"saved {path}")
        self.saved_at = time.monotonic()

    def end(self) -> None:
        """Exit after a signal; the state has been saved."""
        name = self.stop.name or "a signal to another process"
        log.info(f"stopped by {name}; the same command with TRAIN.resume auto continues")
        sys.exit(EXIT_STOPPED)
