"""What the dataset check says: findings with their fixes, and the numbers of each split."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from util.extra.dataset_check.counts import ClassCounts


@dataclass(frozen=True)
class Finding:
    """A fault of one kind: what it is, the files that have it (all of them), and the fix."""

    kind: str
    what: str
    files: Sequence[str]
    cure: str


@dataclass(frozen=True)
class Report:
    """Findings are to be fixed; notes are good to know. Counts and pairs by split."""

    findings: list[Finding]
    notes: list[Finding]
    counts: Mapping[str, ClassCounts]
    pairs: Mapping[str, int]

    @property
    def class_weights(self) -> list[float]:
        """Of the training split where it was read."""
        return next(iter(self.counts.values())).median_weights()


def plural(count: int, what: str) -> str:
    """`1 label of x`, `2 labels of x`, `3 classes`."""
    first, *rest = what.split(" ")
    ending = "" if count == 1 else "es" if first.endswith("s") else "s"
    return " ".join([str(count), first + ending, *rest])
