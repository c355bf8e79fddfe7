"""Seeding: once for the run, and again for each step."""

import random

import numpy as np
import torch


def choose_seed() -> int:
    """Return a random seed."""
    return random.SystemRandom().randrange(2**31)


def seed_everything(seed: int) -> None:
    """Seed Python's, NumPy's and torch's generators (all devices)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def seed_step(seed: int, step: int, rank: int) -> None:
    """Seed torch's generators, which dropout uses, for one step of one process.

    The random numbers depend on (seed, step, rank) only, so checkpoints need no generator state.
    """
    words = np.random.SeedSequence((seed, step, rank)).generate_state(1, np.uint64)
    # torch.manual_seed would record a call stack for absent devices, which costs 1 ms per step.
    torch.default_generator.manual_seed(int(words[0]) % 2**63)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed(int(words[0]) % 2**63)
