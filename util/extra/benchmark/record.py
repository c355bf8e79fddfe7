"""The rows of a benchmark: written immediately as JSON lines, then as JSON and Markdown."""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from util.data.file import write_text
from util.evaluation.output import check_file

Row = dict[str, Any]


@dataclass(frozen=True)
class Record:
    """Rows are written to <path>.jsonl immediately, so that an interrupted run keeps them."""

    path: Path  # without suffix

    def add(self, part: str, name: str, **values: Any) -> Row:
        """Write a row and print it."""
        row = {"part": part, "name": name, **values}
        with self._lines.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, default=float) + "\n")  # `default` handles NumPy's numbers
        shown = ", ".join(f"{k} {text(v)}" for k, v in values.items() if v is not None)
        print(f"{part}: {name}: {shown}", flush=True)
        return row

    def start(self) -> None:
        """Remove the rows of an earlier benchmark. Raises ConfigError if there are other files."""
        is_ours = _is_rows(self._lines)
        for suffix in (".jsonl", ".json", ".md"):
            check_file(self._file(suffix), key="--output", is_ours=lambda path: is_ours)
        self._lines.write_text("")

    def rows(self) -> list[Row]:
        """Read all rows so far, from all processes."""
        lines = self._lines.read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines if line.endswith("}")]

    def write(self, about: dict[str, Any]) -> str:
        """Write <path>.json ({**about, "rows": [...]}) and <path>.md; return the Markdown."""
        rows = self.rows()
        content = json.dumps({**about, "rows": rows}, indent=2) + "\n"
        write_text(self._file(".json"), content)
        head = "\n".join(f"- {name}: {text(value)}" for name, value in about.items())
        parts = dict.fromkeys(row["part"] for row in rows)
        tables = [table(part, [row for row in rows if row["part"] == part]) for part in parts]
        markdown = "\n\n".join([head, *tables]) + "\n"
        write_text(self._file(".md"), markdown)
        return markdown

    @property
    def _lines(self) -> Path:
        return self._file(".jsonl")

    def _file(self, suffix: str) -> Path:
        return self.path.with_name(f"{self.path.name}{suffix}")


@dataclass(frozen=True)
class Deadline:
    """The time (on time.monotonic's clock) by which a part must have finished."""

    moment: float

    @staticmethod
    def after(seconds: float) -> "Deadline":
        return Deadline(time.monotonic() + seconds)

    def left(self) -> float:
        """Remaining seconds, negative after the deadline."""
        return self.moment - time.monotonic()


def _is_rows(path: Path) -> bool:
    """Whether a benchmark wrote the file; it may be empty."""
    try:
        first = path.read_text(encoding="utf-8").partition("\n")[0] if path.is_file() else "no"
        return not first or "part" in json.loads(first)
    except (OSError, ValueError, TypeError):
        return False


def table(title: str, rows: list[Row]) -> str:
    """Format rows as a Markdown table with a column for each name."""
    names = list(dict.fromkeys(n for row in rows for n in row if n != "part"))
    heads = [title if name == "name" else name.replace("_", " ") for name in names]
    lines = [heads, ["---"] * len(names)]
    lines += [[text(row.get(name)).replace("|", "\\|") for name in names] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def text(value: Any) -> str:
    """Format a value: numbers with four digits, nothing for None."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(text, value))
    return " ".join(str(value).split())
