"""Where random numbers come from: a seed for the run, and one for each of its steps."""

import random

import numpy as np
import torch


def choose_seed() -> int:
    """A fresh seed."""
    return random.SystemRandom().randrange(2**31)


def seed_everything(seed: int) -> None:
    """Start Python's, NumPy's and torch's generators (all devices) from `seed`."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def seed_step(seed: int, step: int, rank: int) -> None:
    """Start torch's generators, which draw dropout, for one step of one process.

    With the step's numbers a function of (seed, step, rank), a resumed run needs no saved ones.
    """
    words = np.random.SeedSequence((seed, step, rank)).generate_state(1, np.uint64)
    # torch.manual_seed would note the call stack for devices that are not there: 1 ms a step.
    torch.default_generator.manual_seed(int(words[0]) % 2**63)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed(int(words[0]) % 2**63)
