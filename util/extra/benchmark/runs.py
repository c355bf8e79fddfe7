"""Running this project's commands from a benchmark, with a log and a time limit."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from util.config.load import ROOT
from util.error import RunError
from util.extra.benchmark.record import Deadline


@dataclass
class Command:
    """A Python command with a log: `start` it, then `end` or `kill` it."""

    words: list[str]
    log: Path
    environment: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen | None = None

    def start(self) -> "Command":
        """Start the command and append its output to the log."""
        with self.log.open("a", encoding="utf-8") as file:
            file.write(f"== python {' '.join(self.words)}\n")
            file.flush()
            self.process = subprocess.Popen(
                [sys.executable, *self.words],
                cwd=ROOT,
                env={**os.environ, **self.environment},
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # so that its workers can be killed with it
            )
        return self

    def end(self, seconds: float) -> None:
        """Wait for the command, killing it after `seconds`. Raises RunError on failure."""
        assert self.process is not None
        try:
            code = self.process.wait(max(1.0, seconds))
        except subprocess.TimeoutExpired:
            self.kill()
            raise RunError(f"{self.words[0]} took more than {seconds:.0f} s") from None
        if code:
            lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
            raise RunError(f"{self.words[0]} ended with code {code}: {' / '.join(lines[-3:])}")

    def kill(self) -> None:
        """Kill the command and its workers."""
        assert self.process is not None
        if os.name == "posix":
            with suppress(ProcessLookupError):  # it has exited
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()
        self.process.wait()

    def has_ended(self) -> bool:
        """Whether the command has exited."""
        assert self.process is not None
        return self.process.poll() is not None


def tool(name: str, config: Path, keys: dict[str, Any]) -> list[str]:
    """Return the arguments of `python tool/<name>.py --config ... KEY value`."""
    pairs = [word for key, value in keys.items() for word in (key, str(value))]
    return [str(ROOT / f"tool/{name}.py"), "--config", str(config), *pairs]


def wait_for(found: Callable[[], bool], seconds: float) -> bool:
    """Wait up to `seconds` until `found` is true; return whether it is."""
    end = time.monotonic() + seconds
    while not found():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def epochs_of(save_path: Path) -> list[dict[str, Any]]:
    """Read the records of a run's epochs so far."""
    path = save_path / "metrics.jsonl"
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]


def scores(
    config: Path, keys: dict[str, Any], *, folder: Path, log: Path, deadline: Deadline
) -> dict[str, Any]:
    """Run tool/test.py into `folder` and return its scores."""
    command = Command(tool("test", config, {**keys, "save_folder": folder}), log).start()
    command.end(deadline.left())
    return read_scores(folder)


def read_scores(folder: Path) -> dict[str, Any]:
    """Read the scores and the speed from a result folder."""
    found = json.loads(next(folder.rglob("scores.json")).read_text())
    names = ("miou", "macc", "aacc")
    return {n: found[n] for n in names} | {
        "images_per_second": found["protocol"].get("images_per_second")
    }
