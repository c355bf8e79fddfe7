"""What a run logs and keeps: console, log file, progress, and what it takes to repeat it.

Everywhere `logging.getLogger("semseg")` takes the messages; the handlers are attached here.
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

# Bars of one process need no lock between processes, which would outlive a process that is killed.
tqdm.set_lock(threading.RLock())

GIT_SECONDS = 20.0  # on a network disk that hangs git would hang, too

log = logging.getLogger("semseg")


def start_logging(*, is_main: bool = True) -> None:
    """Show the log on the console; a process that is not the main one stays silent."""
    log.setLevel(logging.INFO if is_main else logging.CRITICAL + 1)
    if not any(isinstance(handler, _ConsoleHandler) for handler in log.handlers):
        log.addHandler(_formatted(_ConsoleHandler()))


class RunLogger:
    """Keeps the log of a run in `<folder>/<name>-<date>.log`, from now on until `with` ends.

    A null object where `active` is False (other ranks).
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
            with suppress(OSError) if kind else nullcontext():  # of two errors the first counts
                self.close()

    def close(self) -> None:
        """Close the files."""
        self._file.close()


class Progress:
    """Counts steps and times them: `Data` waits for the loader, `Batch` is a whole step.

    On a terminal a bar moves, where this process speaks; `line()` gives the text for the log.
    """

    def __init__(self, *, done: int, total: int, active: bool = True) -> None:
        self.done, self.total = done, total
        self._disable = None if active else True  # None: a bar on terminals alone
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
        """`Data 0.003 (0.010) Batch 0.612 (0.634) Remain 13:20:11`, seconds: last (mean)."""
        minutes, seconds = divmod(int(max(0, self.total - self.done) * self.batch.mean), 60)
        hours, minutes = divmod(minutes, 60)
        return (
            f"Data {self.data.last:.3f} ({self.data.mean:.3f}) "
            f"Batch {self.batch.last:.3f} ({self.batch.mean:.3f}) "
            f"Remain {hours:02d}:{minutes:02d}:{seconds:02d}"
        )


class Meter:
    """The last and the mean of numbers added one by one."""

    def __init__(self) -> None:
        self.last, self._sum, self._count = 0.0, 0.0, 0

    def add(self, value: float) -> None:
        """Take a number in."""
        self.last, self._sum, self._count = value, self._sum + value, self._count + 1

    @property
    def mean(self) -> float:
        """Mean of all numbers, 0 before the first."""
        return self._sum / max(1, self._count)


def headline(scores: Scores) -> str:
    """The three numbers of the results tables."""
    return f"mIoU/mAcc/aAcc {scores.miou:.4f}/{scores.macc:.4f}/{scores.aacc:.4f}."


def write_origin(
    folder: Path, *, root: Path, device: str, overwrite: bool = True
) -> dict[str, Any]:
    """Keep what it takes to repeat a run: environment.json, and git.diff of a changed checkout.

    Returns what environment.json holds; without `overwrite` files that are there stay.
    """

    def git(*words: str) -> bytes:
        command = ["git", "-C", str(root), *words]
        try:
            run = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, timeout=GIT_SECONDS
            )
        except (OSError, subprocess.TimeoutExpired) as error:  # no git here, or it hangs
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
                (folder / "git.diff").write_bytes(diff)  # of files in any encoding
    return record


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Within it a failing write (disk full) names the path, which the system does not."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


class _ConsoleHandler(logging.Handler):
    """Writes lines above a progress bar instead of through it."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stdout)
        sys.stdout.flush()


class _FileHandler(logging.FileHandler):
    """Raises what `logging` would print as a traceback and forget: a full disk."""

    def emit(self, record: logging.LogRecord) -> None:
        with naming(Path(self.baseFilename)):
            super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        raise


def _formatted(handler: logging.Handler) -> logging.Handler:
    form = "[%(asctime)s %(levelname)s] %(message)s"
    handler.setFormatter(logging.Formatter(form, "%Y-%m-%d %H:%M:%S"))
    return handler
