"""A training run from the inside: its state, a step, the nonfinite, the saver, the validation."""

from util.training.checkpoint_saver import CheckpointSaver
from util.training.errors import explained
from util.training.nonfinite import NonfiniteCheck
from util.training.state import State, checkpoint_of, restore_state, start_state
from util.training.statistics import EpochStatistics
from util.training.step import (
    StepResult,
    batch_norm_images,
    check_batch,
    train_mode,
    train_step,
)
from util.training.validation import validate

__all__ = [
    "CheckpointSaver",
    "EpochStatistics",
    "NonfiniteCheck",
    "State",
    "StepResult",
    "batch_norm_images",
    "check_batch",
    "checkpoint_of",
    "explained",
    "restore_state",
    "start_state",
    "train_mode",
    "train_step",
    "validate",
]
