"""What the dataset check says: findings with their cures, and the numbers of each split."""

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from util.data.list_file import Sample
from util.extra.dataset_check.counts import ClassCounts
from util.extra.dataset_check.pairs import Facts


@dataclass(frozen=True)
class Finding:
    """A fault of one kind: in words, in which files (all of them), and what cures it."""

    kind: str
    what: str
    files: Sequence[str]
    cure: str


@dataclass(frozen=True)
class Entry:
    """A line of a list and its files; `facts` are added once they have been read."""

    split: str
    list_path: Path
    number: int
    sample: Sample
    facts: Facts = field(default_factory=Facts)


@dataclass(frozen=True)
class Report:
    """Findings are to be cured; notes are good to know. Counts and pairs by split."""

    findings: list[Finding]
    notes: list[Finding]
    counts: dict[str, ClassCounts]
    pairs: dict[str, int]

    @property
    def class_weights(self) -> list[float]:
        """Of the training split where it was read."""
        return next(iter(self.counts.values())).median_weights()


def blank_lines(places: Iterable[tuple[Path, int]]) -> str:
    """The command that empties lines (file, number): their numbers stay, and lists may hold blank
    lines, so that several such commands can follow each other."""
    numbers: dict[Path, set[int]] = {}
    for path, number in places:
        numbers.setdefault(path, set()).add(number)
    return " && ".join(
        f"sed -i '{';'.join(f'{n}s/.*//' for n in sorted(lines))}' {shlex.quote(str(path))}"
        for path, lines in numbers.items()
    )


def plural(count: int, what: str) -> str:
    """`1 label of x`, `2 labels of x`, `3 classes`."""
    first, *rest = what.split(" ")
    ending = "" if count == 1 else "es" if first.endswith("s") else "s"
    return " ".join([str(count), first + ending, *rest])
