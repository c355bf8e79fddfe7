"""What the dataset check says: findings with their fixes, and the numbers of each split."""

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from util.data.list_file import Sample
from util.extra.dataset_check.counts import ClassCounts
from util.extra.dataset_check.pairs import Facts


@dataclass(frozen=True)
class Finding:
    """A fault of one kind: what it is, the files that have it (all of them), and the fix."""

    kind: str
    what: str
    files: Sequence[str]
    cure: str


@dataclass(frozen=True)
class Entry:
    """A line of a list; its files, unless one is missing; what they hold, once they were read."""

    split: str
    list_path: Path
    number: int
    sample: Sample | None = None
    facts: Facts = field(default_factory=Facts)


@dataclass(frozen=True)
class Report:
    """Findings are to be fixed; notes are good to know. Counts and pairs by split."""

    findings: list[Finding]
    notes: list[Finding]
    counts: dict[str, ClassCounts]
    pairs: dict[str, int]

    @property
    def class_weights(self) -> list[float]:
        """Of the training split where it was read."""
        return next(iter(self.counts.values())).median_weights()


def blank_lines(entries: Iterable[Entry]) -> str:
    """The command that empties the lines of entries: the numbers of others stay, and lists may hold
    blank lines, so that several such commands can follow each other."""
    numbers: dict[Path, set[int]] = {}
    for entry in entries:
        numbers.setdefault(entry.list_path, set()).add(entry.number)
    return " && ".join(
        f"sed -i '{';'.join(f'{n}s/.*//' for n in sorted(lines))}' {shlex.quote(str(path))}"
        for path, lines in numbers.items()
    )


def plural(count: int, what: str) -> str:
    """`1 label of x`, `2 labels of x`, `3 classes`."""
    first, *rest = what.split(" ")
    ending = "" if count == 1 else "es" if first.endswith("s") else "s"
    return " ".join([str(count), first + ending, *rest])
