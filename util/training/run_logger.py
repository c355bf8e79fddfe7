"""Logging of a training run: log file, TensorBoard, and one JSON line per epoch."""

import json
import logging
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event
from torch import Tensor

from util.data.transform import denormalise
from util.logger import RunLogger, headline, naming
from util.metric import Scores
from util.palette import side_by_side
from util.training.loss import label_at

log = logging.getLogger("semseg")

IMAGES = 3  # samples shown in TensorBoard per epoch
FLUSH_SECONDS = 10.0  # between flushes of TensorBoard's events to disk


class TrainLogger(RunLogger):
    """RunLogger that also writes TensorBoard events and metrics.jsonl; a null object elsewhere.

    `colors` (classes, 3) is the palette of label maps. A resumed run removes the lines of
    metrics.jsonl that follow epoch `epochs`, because it trains those epochs again.
    """

    def __init__(
        self, folder: str | Path, *, colors: np.ndarray, epochs: int = 0, active: bool = True
    ) -> None:
        super().__init__(folder, name="train", active=active)
        self._colors = colors
        self._events: EventsWriter | None = None
        self._flushed_at = time.monotonic()
        self._metrics = self.folder / "metrics.jsonl"
        if active:
            self._drop_later_epochs(epochs)

    def scalars(self, step: int, **values: float) -> None:
        """Write scalars to TensorBoard; the part of a name before `__` becomes its group."""
        for name, value in values.items():
            self._add(summary.scalar(name.replace("__", "/"), value), step)

    def scores(self, epoch: int, epochs: int, split: str, scores: Scores) -> None:
        """Log mIoU, mAcc and aAcc of an epoch, also to TensorBoard."""
        log.info(f"{split.capitalize()} result at epoch [{epoch}/{epochs}]: {headline(scores)}")
        for name in ("miou", "macc", "aacc"):
            self.scalars(epoch, **{f"{split}__{name}": getattr(scores, name)})

    def speed(self, epoch: int, epochs: int, record: Mapping[str, float]) -> None:
        """Log speed, data wait, memory and FLOP/s of an epoch, also to TensorBoard."""
        log.info(
            f"Speed at epoch [{epoch}/{epochs}]: {record['images_per_second']:.2f} images/s, "
            f"{record['data_wait']:.1%} of the time waiting for data, "
            f"{record['memory_gib']:.2f} GiB, {record['tflops']:.3g} TFLOP/s"
        )
        for name in ("data_wait", "memory_gib", "tflops"):
            self.scalars(epoch, **{f"speed__{name}": record[name]})

    def images(self, epoch: int, split: str, images: Tensor, labels: Tensor, preds: Tensor) -> None:
        """Write the first images of a batch to TensorBoard as image | label | prediction.

        images (N, 3, H, W), uint8 or normalised; labels and preds (N, h, w), h <= H and w <= W.
        """
        if not self.active:
            return
        rows = [
            side_by_side(
                denormalise(label_at(image, label.shape)),
                label.cpu().numpy(),
                pred.cpu().numpy(),
                self._colors,
            )
            for image, label, pred in zip(images[:IMAGES], labels, preds, strict=False)
        ]
        name = f"{split}/image_label_prediction"
        self._add(summary.image(name, np.vstack(rows), dataformats="HWC"), epoch)

    def epoch(self, record: dict[str, Any]) -> None:
        """Append a record to metrics.jsonl."""
        if self.active:
            with naming(self._metrics), self._metrics.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")

    def close(self) -> None:
        """Close the files."""
        super().close()
        if self._events:
            self._events.close()

    def _drop_later_epochs(self, epochs: int) -> None:
        path, lines = self._metrics, []
        if path.is_file():
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        kept = [line for line in lines if _epoch_of(line) <= epochs]
        if kept != lines:
            temporary = path.with_name(f"{path.name}.tmp")
            with naming(path):
                temporary.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
                temporary.replace(path)

    def _add(self, values: Any, step: int) -> None:
        """Write to TensorBoard in this thread.

        A background writer would die when the disk is full, and this thread then wait forever.
        """
        if not self.active:
            return
        with naming(self.folder):
            if self._events is None:
                self._events = EventsWriter(str(self.folder / "events"))
            self._events.write_event(Event(summary=values, step=step, wall_time=time.time()))
            if time.monotonic() - self._flushed_at > FLUSH_SECONDS:
                self._events.flush()
                self._flushed_at = time.monotonic()


def _epoch_of(line: str) -> int:
    """Return the epoch of a line of metrics.jsonl; a truncated line sorts after all epochs."""
    try:
        return int(json.loads(line)["epoch"])
    except (ValueError, TypeError, KeyError):
        return sys.maxsize
