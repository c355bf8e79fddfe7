"""Saves the state when it is due, and ends the run when a signal asks for it."""

import sys
import time

from util.checkpoint import save_checkpoint
from util.config import Config
from util.distributed import Process, StopRequest
from util.error import EXIT_STOPPED
from util.logger import RunLogger
from util.training.state import State, checkpoint_of


class CheckpointSaver:
    """The files of one run: train_epoch_<N>[_step_<S>].pth and best.pth in TRAIN.save_path."""

    def __init__(
        self,
        cfg: Config,
        process: Process,
        logger: RunLogger,
        stop: StopRequest,
        *,
        steps_per_epoch: int,
    ) -> None:
        self._cfg, self._process, self._logger, self._stop = cfg, process, logger, stop
        self._steps_per_epoch = steps_per_epoch
        self._saved_at = time.monotonic()

    def after_step(self, state: State, *, may_stop: bool) -> None:
        """Within an epoch: every so many steps or minutes; on a signal, where `may_stop`.

        All processes must stop together, so they ask each other: at the same steps.
        """
        cfg = self._cfg
        must_end = may_stop and self._process.any_rank(bool(self._stop.name))
        by_steps = cfg.save_every_steps and state.step % cfg.save_every_steps == 0
        minutes = (time.monotonic() - self._saved_at) / 60
        by_minutes = cfg.save_every_minutes and minutes >= cfg.save_every_minutes
        if must_end or by_steps or by_minutes:
            self._save(state)
        if must_end:
            self._end()

    def after_epoch(self, state: State, *, is_best: bool) -> None:
        """Every save_freq epochs, after the last one, for the best score, and for a signal."""
        is_last = state.epoch == self._cfg.epochs
        must_end = self._process.any_rank(bool(self._stop.name)) and not is_last
        is_due = is_last or must_end or state.epoch % self._cfg.save_freq == 0
        self._save(state, is_due=is_due, is_best=is_best)
        if must_end:
            self._end()

    def _save(self, state: State, *, is_due: bool = True, is_best: bool = False) -> None:
        if self._process.is_main and (is_due or is_best):
            content = checkpoint_of(state, self._cfg, steps_per_epoch=self._steps_per_epoch)
            folder = self._cfg.save_path
            for path in save_checkpoint(folder, content, is_due=is_due, is_best=is_best):
                self._logger.info(f"saved {path}")
        self._saved_at = time.monotonic()

    def _end(self) -> None:
        name = self._stop.name or "a signal to another process"
        self._logger.info(f"stopped by {name}; the same command with TRAIN.resume auto goes on")
        self._logger.close()
        sys.exit(EXIT_STOPPED)
