"""A training run from the inside: its state, a step, the guard, the keeper, the validation."""

from util.training.guard import Guard
from util.training.keeper import Keeper
from util.training.problems import explained
from util.training.state import State, checkpoint_of, restore_state, start_state
from util.training.step import StepResult, check_batch, train_mode, train_step
from util.training.validation import validate

__all__ = [
    "Guard",
    "Keeper",
    "State",
    "StepResult",
    "check_batch",
    "checkpoint_of",
    "explained",
    "restore_state",
    "start_state",
    "train_mode",
    "train_step",
    "validate",
]
