"""Timing alternatives in turn within one process: medians, spreads, ratios."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from util.extra.benchmark.machine import wait


@dataclass(frozen=True)
class Result:
    """Times of an alternative: median and extremes in seconds, and what it returned.

    `ratio` is the speed-up over the first alternative, the median over turns.
    """

    seconds: float
    fastest: float
    slowest: float
    ratio: float
    output: Any

    def row(self, *, per: int = 1) -> dict[str, float]:
        """Return table columns, with times divided by `per` items."""
        return {
            "seconds": self.seconds / per,
            "fastest": self.fastest / per,
            "slowest": self.slowest / per,
            "ratio": self.ratio,
        }


def race(
    ways: Mapping[str, Callable[[], Any]], *, runs: int, device: torch.device | None = None
) -> dict[str, Result]:
    """Run each alternative once to warm up, then all in turn, `runs` times."""
    device = device or torch.device("cpu")
    outputs = {name: work() for name, work in ways.items()}
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(runs):
        for name, work in ways.items():
            wait(device)
            start = time.perf_counter()
            work()
            wait(device)
            times[name].append(time.perf_counter() - start)
    first = next(iter(times.values()))
    return {
        name: Result(
            statistics.median(own),
            min(own),
            max(own),
            statistics.median(a / b for a, b in zip(first, own, strict=True)),
            outputs[name],
        )
        for name, own in times.items()
    }


def installed(module: str) -> Any:
    """Import an optional package for comparison; None if it is not installed."""
    try:
        return __import__(module)
    except ImportError:
        return None
