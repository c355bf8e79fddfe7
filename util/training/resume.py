"""Resuming from a checkpoint. Its content is checked completely before any of it is used."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from util.config import Config
from util.distributed import Process, unwrap
from util.error import CheckpointError, ConfigError
from util.training.checkpoint import Checkpoint, find_resume
from util.training.optimizer import restore_optimizer
from util.training.seed import choose_seed
from util.training.state import State
from util.training.weight_file import load_file

log = logging.getLogger("semseg")

# Field -> type, smallest value, largest value.
_NUMBERS = {
    "epoch": (int, 0, 2**31),
    "step_in_epoch": (int, 0, 2**31),
    "seed": (int, 0, 2**63 - 1),
    "batch_size": (int, 1, 2**31),
    "best_miou": (float, -1, 1),
    "lr": (float, 0, 1e30),
}
_SCALER_NUMBERS = {
    "scale": (float, 0, 1e30),
    "growth_factor": (float, 1, 1e30),
    "backoff_factor": (float, 0, 1),
    "growth_interval": (int, 1, 2**31),
    "_growth_tracker": (int, 0, 2**31),
}


def read_resume(cfg: Config, process: Process) -> tuple[Config, Checkpoint | None]:
    """Return the config with its seed set, and the checkpoint to resume from (None: new run).

    An empty TRAIN.manual_seed is replaced by the checkpoint's seed, in a new run by a random one.
    All processes get the same result.
    """
    found = find_resume(cfg.resume, cfg.save_path) if process.is_main else None
    path = process.broadcast(found.path if found else "")
    if path and found is None:
        found = Checkpoint(path, load_file(path))
    if found:
        check_numbers(found)
    if cfg.manual_seed is None:
        seed = found.content.get("seed", choose_seed()) if found else choose_seed()
        cfg = replace(cfg, manual_seed=process.broadcast(seed))
    return cfg, found


def restore_state(
    state: State, cfg: Config, checkpoint: Checkpoint, order: Mapping[str, Any]
) -> None:
    """Restore everything but the weights, which the state's network already has.

    `order` comes from `order_of`. Raises CheckpointError or ConfigError if the run cannot continue
    from there; harmless changes of settings are logged.
    """
    source, content = checkpoint
    restore_optimizer(state.optimizer, cfg, unwrap(state.model), content, source=source)
    state.epoch, state.step_in_epoch = content["epoch"], content.get("step_in_epoch", 0)
    state.best_miou = content.get("best_miou", -1.0)
    if content.get("scaler"):
        state.scaler.load_state_dict(content["scaler"])
    _check_order(state, content, order, source)
    if "lr" in content and state.epoch < cfg.epochs:
        rate = state.rate(cfg)
        if abs(rate - content["lr"]) > 1e-9 * content["lr"]:
            log.info(
                f"the learning rate jumps from {content['lr']:.6g} to {rate:.6g}: TRAIN.epochs "
                f"({cfg.epochs} now), base_lr, power, warmup_steps or the number of steps has "
                f"changed since {source} was saved"
            )


def check_numbers(checkpoint: Checkpoint) -> None:
    """Raise CheckpointError unless all numbers are present, of the right type and in range."""
    source, content = checkpoint
    if "epoch" not in content:
        raise CheckpointError(
            f"{source} has no epoch, so it is not a training checkpoint: start from its weights "
            f"with TRAIN.weight {source} instead of TRAIN.resume"
        )
    scaler = {} if content.get("scaler") is None else content["scaler"]
    if not isinstance(scaler, dict) or (scaler and scaler.keys() != _SCALER_NUMBERS.keys()):
        raise CheckpointError(f"{source} holds an invalid scaler: use another checkpoint")
    for values, limits in ((content, _NUMBERS), (scaler, _SCALER_NUMBERS)):
        for field, (kind, low, high) in limits.items():
            value = values.get(field, low)
            kinds = (int, float) if kind is float else int
            if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:
                what = "a number" if kind is float else "a whole number"
                raise CheckpointError(
                    f"{source} holds {field} {str(value)[:40]!r}, which must be {what} from {low} "
                    f"to {high}: it is damaged or was changed; use another checkpoint"
                )


def _check_order(
    state: State, content: Mapping[str, Any], order: Mapping[str, Any], source: str
) -> None:
    """Check that the rest of a started epoch uses the same images as without interruption."""
    if state.step_in_epoch >= state.steps_per_epoch:
        raise CheckpointError(
            f"{source} was saved after {state.step_in_epoch} steps of an epoch, but epochs now "
            f"have {state.steps_per_epoch}: resume with the same list and TRAIN.batch_size, or "
            f"start from its weights with TRAIN.weight {source}"
        )
    names = {"seed": "TRAIN.manual_seed", "batch_size": "TRAIN.batch_size"}
    for key, now in order.items():
        was = content.get(key, now)
        if was == now:
            continue
        what = f"{names[key]} was {was} and is {now}" if key in names else "train_list has changed"
        if state.step_in_epoch:
            raise ConfigError(
                f"{source} was saved within an epoch, but {what}: the rest of that "
                "epoch would repeat some images and omit others; restore it, or resume from a "
                "checkpoint at the end of an epoch"
            )
        log.info(f"{what} since {source} was saved")
