"""The result of a dataset check: findings with their fixes, and counts per split."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from util.extra.dataset_check.counts import ClassCounts


@dataclass(frozen=True)
class Finding:
    """A kind of problem: what it is, all affected files, and the fix."""

    kind: str
    what: str
    files: Sequence[str]
    cure: str


@dataclass(frozen=True)
class Report:
    """Findings to fix, notes for information, and class counts and numbers of pairs per split."""

    findings: list[Finding]
    notes: list[Finding]
    counts: Mapping[str, ClassCounts]
    pairs: Mapping[str, int]

    @property
    def class_weights(self) -> list[float]:
        """Weights from the training split, or from the validation split if only that was read."""
        return next(iter(self.counts.values())).median_weights()


def plural(count: int, what: str) -> str:
    """Format a count: `1 label of x`, `2 labels of x`, `3 classes`."""
    first, *rest = what.split(" ")
    ending = "" if count == 1 else "es" if first.endswith("s") else "s"
    return " ".join([str(count), first + ending, *rest])
