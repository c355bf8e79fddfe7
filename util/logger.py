"""What a run logs and keeps: console, log file, TensorBoard, a JSON line per epoch, its origin.

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
from datetime import datetime
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from tensorboardX import SummaryWriter
from torch import Tensor
from tqdm import tqdm

from util.data.transform import denormalise
from util.metric import Scores
from util.palette import side_by_side

# Bars of one process need no lock between processes, which would outlive a process that is killed.
tqdm.set_lock(threading.RLock())

IMAGES = 3  # samples shown in TensorBoard after each epoch

log = logging.getLogger("semseg")


def start_logging(*, is_main: bool = True) -> None:
    """Show the log on the console; a process that is not the main one stays silent."""
    log.setLevel(logging.INFO if is_main else logging.CRITICAL + 1)
    if not any(isinstance(handler, _ConsoleHandler) for handler in log.handlers):
        log.addHandler(_formatted(_ConsoleHandler()))


class RunLogger:
    """The record of one run in its folder; a null object where `active` is False (other ranks).

    Files: `<name>-<date>.log` (the log, until `close`), `metrics.jsonl`, TensorBoard event files.
    `colors` (classes, 3) are those of label maps in images.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        name: str,
        active: bool = True,
        colors: np.ndarray | None = None,
    ) -> None:
        self.active = active
        self._colors = np.zeros((0, 3), np.uint8) if colors is None else colors
        if not active:
            return
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        stamp = datetime.now().strftime("%Y%m%d_%H%M%S")
        self._file = _formatted(logging.FileHandler(self.folder / f"{name}-{stamp}.log"))
        log.addHandler(self._file)
        self._writer: SummaryWriter | None = None

    def __enter__(self) -> "RunLogger":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def info(self, text: str) -> None:
        """A line of the log."""
        if self.active:
            log.info(text)

    def scalars(self, step: int, **values: float) -> None:
        """Numbers for TensorBoard; the part of a name before `__` becomes its group."""
        if self.active:
            for name, value in values.items():
                self._tensorboard().add_scalar(name.replace("__", "/"), value, step)

    def scores(self, epoch: int, epochs: int, split: str, scores: Scores) -> None:
        """mIoU, mAcc and aAcc of an epoch: a line, and TensorBoard."""
        log.info(f"{split.capitalize()} result at epoch [{epoch}/{epochs}]: {headline(scores)}")
        for name in ("miou", "macc", "aacc"):
            self.scalars(epoch, **{f"{split}__{name}": getattr(scores, name)})

    def images(self, epoch: int, split: str, images: Tensor, labels: Tensor, preds: Tensor) -> None:
        """A batch's first images as image | label | prediction for TensorBoard.

        images (N, 3, H, W) normalised; labels and preds (N, h, w) of ids, perhaps smaller.
        """
        if not self.active:
            return
        stride = (images.shape[-1] - 1) // max(1, labels.shape[-1] - 1)
        rows = [
            side_by_side(
                denormalise(image[:, ::stride, ::stride]),
                label.cpu().numpy(),
                pred.cpu().numpy(),
                self._colors,
            )
            for image, label, pred in zip(images[:IMAGES], labels, preds, strict=False)
        ]
        name = f"{split}/image_label_prediction"
        self._tensorboard().add_image(name, np.vstack(rows), epoch, dataformats="HWC")

    def epoch(self, record: dict[str, Any]) -> None:
        """One JSON line in metrics.jsonl."""
        if self.active:
            with (self.folder / "metrics.jsonl").open("a") as file:
                file.write(json.dumps(record) + "\n")

    def close(self) -> None:
        """End the log file, and write out what TensorBoard still holds back."""
        if self.active:
            log.removeHandler(self._file)
            self._file.close()
            if self._writer:
                self._writer.close()

    def _tensorboard(self) -> SummaryWriter:
        if self._writer is None:  # made when needed: a test leaves no empty event file
            self._writer = SummaryWriter(str(self.folder))
        return self._writer


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
            run = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=30)
        except (OSError, subprocess.TimeoutExpired):  # no git here, or it hangs
            return b""
        return run.stdout if run.returncode == 0 else b""

    commit, diff = git("rev-parse", "HEAD").decode().strip(), git("diff", "HEAD")
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
        (folder / "environment.json").write_text(json.dumps(record, indent=2) + "\n")
        (folder / "git.diff").unlink(missing_ok=True)
        if diff:
            (folder / "git.diff").write_bytes(diff)  # of files in any encoding
    return record


class _ConsoleHandler(logging.Handler):
    """Writes lines above a progress bar instead of through it."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stdout)
        sys.stdout.flush()


def _formatted(handler: logging.Handler) -> logging.Handler:
    form = "[%(asctime)s %(levelname)s] %(message)s"
    handler.setFormatter(logging.Formatter(form, "%Y-%m-%d %H:%M:%S"))
    return handler
