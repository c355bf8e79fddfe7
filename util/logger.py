"""Console and file logging, progress, and the record needed to reproduce a run.

All modules log to `logging.getLogger("semseg")`; its handlers are attached here.
"""

import json
import logging
import os
import platform
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from tqdm import tqdm

from util.metric import Scores

# tqdm's default lock is shared among processes and would leak if a process is killed.
tqdm.set_lock(threading.RLock())

GIT_SECONDS = 20.0  # timeout: git hangs on a network disk that hangs

log = logging.getLogger("semseg")


def start_logging(*, is_main: bool = True) -> None:
    """Log to the console in the main process; silence the others."""
    log.setLevel(logging.INFO if is_main else logging.CRITICAL + 1)
    if not any(isinstance(handler, _ConsoleHandler) for handler in log.handlers):
        log.addHandler(_formatted(_ConsoleHandler()))


class RunLogger:
    """Context manager that writes the log to `<folder>/<name>-<date>.log`.

    A null object if not `active` (other ranks).
    """

    def __init__(self, folder: str | Path, *, name: str, active: bool = True) -> None:
        self.active, self.folder = active, Path(folder)
        if not active:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        stamp = datetime.now().strftime("%Y%m%d_%H%M%S")
        self._file = _formatted(_FileHandler(self.folder / f"{name}-{stamp}.log", encoding="utf-8"))
        log.addHandler(self._file)

    def __enter__(self) -> Any:
        return self

    def __exit__(self, kind: type | None, *error: object) -> None:
        if self.active:
            log.removeHandler(self._file)
            with suppress(OSError) if kind else nullcontext():  # do not hide the first error
                self.close()

    def close(self) -> None:
        """Close the files."""
        self._file.close()


class Progress:
    """Counts and times steps: `data` is the wait for the loader, `batch` the whole step.

    Shows a progress bar on a terminal; `line()` formats the times for the log.
    """

    def __init__(self, *, done: int, total: int, active: bool = True) -> None:
        self.done, self.total = done, total
        self._disable = None if active else True  # None: show a bar only on a terminal
        self.data, self.batch = Meter(), Meter()

    def steps(self, batches: Iterable, *, length: int, title: str) -> Iterator:
        """Iterate over `length` batches, timing them."""
        start = time.perf_counter()
        bar = tqdm(
            batches,
            desc=title,
            total=length,
            leave=False,
            disable=self._disable,
            dynamic_ncols=True,
        )
        for batch in bar:
            self.data.add(time.perf_counter() - start)
            yield batch
            self.batch.add(time.perf_counter() - start)
            self.done += 1
            start = time.perf_counter()

    def line(self) -> str:
        """Format as `Data 0.003 (0.010) Batch 0.612 (0.634) Remain 13:20:11`: last (mean) in s."""
        minutes, seconds = divmod(int(max(0, self.total - self.done) * self.batch.mean), 60)
        hours, minutes = divmod(minutes, 60)
        return (
            f"Data {self.data.last:.3f} ({self.data.mean:.3f}) "
            f"Batch {self.batch.last:.3f} ({self.batch.mean:.3f}) "
            f"Remain {hours:02d}:{minutes:02d}:{seconds:02d}"
        )


class Meter:
    """Last value and running mean."""

    def __init__(self) -> None:
        self.last, self._sum, self._count = 0.0, 0.0, 0

    def add(self, value: float) -> None:
        """Add a value."""
        self.last, self._sum, self._count = value, self._sum + value, self._count + 1

    @property
    def mean(self) -> float:
        """Mean of all values, 0 before the first."""
        return self._sum / max(1, self._count)


def headline(scores: Scores) -> str:
    """Format the three numbers of the results tables."""
    return f"mIoU/mAcc/aAcc {scores.miou:.4f}/{scores.macc:.4f}/{scores.aacc:.4f}."


def write_origin(
    folder: Path, *, root: Path, device: str, overwrite: bool = True
) -> dict[str, Any]:
    """Record what is needed to reproduce a run: environment.json and, if modified, git.diff.

    Returns the content of environment.json; existing files are kept without `overwrite`.
    """

    def git(*words: str) -> bytes:
        command = ["git", "-C", str(root), *words]
        try:
            run = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, timeout=GIT_SECONDS
            )
        except (OSError, subprocess.TimeoutExpired) as error:  # git is missing or hangs
            log.info(f"the code's version is not recorded: {error}")
            return b""
        return run.stdout if run.returncode == 0 else b""

    commit, diff = git("rev-parse", "HEAD").decode(errors="replace").strip(), git("diff", "HEAD")
    record = {
        "command": [sys.executable, *sys.argv],
        "directory": os.getcwd(),
        "date": datetime.now().isoformat(timespec="seconds"),
        "host": platform.node(),
        "device": device,
        "platform": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "opencv": cv2.__version__,
        "git_commit": commit or None,
        "has_git_diff": bool(diff),
    }
    if overwrite or not (folder / "environment.json").exists():
        with naming(folder):
            (folder / "environment.json").write_text(json.dumps(record, indent=2) + "\n")
            (folder / "git.diff").unlink(missing_ok=True)
            if diff:
                (folder / "git.diff").write_bytes(diff)  # bytes: files may have any encoding
    return record


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Add the path to write errors within this context; the system omits it."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


class _ConsoleHandler(logging.Handler):
    """Prints log lines above the progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stdout)
        sys.stdout.flush()


class _FileHandler(logging.FileHandler):
    """Raises write errors (disk full), which `logging` would only print."""

    def emit(self, record: logging.LogRecord) -> None:
        with naming(Path(self.baseFilename)):
            super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        raise


def _formatted(handler: logging.Handler) -> logging.Handler:
    form = "[%(asctime)s %(levelname)s] %(message)s"
    handler.setFormatter(logging.Formatter(form, "%Y-%m-%d %H:%M:%S"))
    return handler
