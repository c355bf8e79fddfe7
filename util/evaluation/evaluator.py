"""The evaluation loop: predict each image or reuse its prediction, write it, count it."""

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from util.data.coding import LabelFacts
from util.data.label_map import LabelMap
from util.data.list_file import Sample
from util.data.load import check_first, load
from util.evaluation.result_folder import ResultFolder
from util.logger import Progress
from util.metric import ImageCounts, count_pixels

READERS, WRITERS = 2, 3  # threads; encoding three PNGs costs more than decoding an image

log = logging.getLogger("semseg")
Item = TypeVar("Item")
Output = TypeVar("Output")


@dataclass(frozen=True)
class LoadedImage:
    """A decoded image of the test."""

    number: int
    image: np.ndarray  # (H, W, 3) RGB
    label: np.ndarray | None  # (H, W)
    pred: np.ndarray | None  # (H, W), from an earlier run


class Evaluator:
    """Evaluates images, whose results are stored under `names`, in each process of a run.

    Images are read and written in background threads. `counts`, `done` (images) and `predicted`
    (images not reused from an earlier run) are updated as images finish.

    Args:
        predict: (H, W, 3) uint8 -> ids (H, W); None: all predictions exist already.
        skip_existing: reuse existing predictions of the same protocol.
        beside: facts about labels of another list, which must be coded alike.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        names: Sequence[str],
        *,
        results: ResultFolder,
        predict: Callable[[np.ndarray], np.ndarray] | None,
        skip_existing: bool,
        label_map: LabelMap,
        beside: Sequence[LabelFacts] = (),
    ) -> None:
        self.samples, self.names, self.results = samples, names, results
        self.predict, self.skip_existing = predict, skip_existing
        self.label_map = label_map
        self.like = check_first(samples, label_map, beside=beside)
        self.pred_like = None if predict else results.check_first(names)
        self.counts = ImageCounts(label_map.classes, label_map.ignore_label)
        self.done = self.predicted = 0

    def run(self, numbers: Iterable[int], *, print_freq: int, share: int, is_main: bool) -> None:
        """Evaluate the images of these numbers, about `share` of them.

        Raises UserError; an error in a thread is raised within a few images.
        """
        progress = Progress(done=0, total=share, active=is_main)
        with ThreadPoolExecutor(READERS) as readers, ThreadPoolExecutor(WRITERS) as writers:
            images = read_ahead(readers, self.read, numbers, room=READERS)
            written: deque[Future] = deque()
            for i, image in enumerate(progress.steps(images, length=share, title="Test"), 1):
                pred = image.pred
                if pred is None:
                    assert self.predict is not None
                    pred = self.predict(image.image)
                    self.predicted += 1
                written.append(writers.submit(self._write_and_count, image, pred))
                if len(written) > WRITERS:
                    self._collect(written.popleft())
                if i % print_freq == 0 or image.number + 1 == len(self.samples):
                    place = f"[{image.number + 1}/{len(self.samples)}]"
                    log.info(f"Test: {place} {progress.line()}{self._accuracy()}")
            for future in written:
                self._collect(future)

    def read(self, number: int) -> LoadedImage:
        """Decode an image, its label and its earlier prediction, if any. Raises DataError."""
        image, label = load(self.samples[number], self.label_map, like=self.like)
        name, pred = self.names[number], None
        if self.predict is None:
            pred = self.results.read(name, image, like=self.pred_like)
        elif self.skip_existing:
            pred = self.results.find(name, image)
        return LoadedImage(number, image, label, pred)

    def load(self, number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Load a labelled image after the test: RGB (H, W, 3), label and prediction (H, W)."""
        image, label = load(self.samples[number], self.label_map)
        assert label is not None
        return image, label, self.results.read(self.names[number], image)

    def _write_and_count(self, image: LoadedImage, pred: np.ndarray) -> tuple[int, np.ndarray]:
        """Return the image's number and its confusion matrix (all 0 without a label)."""
        name, label = self.names[image.number], image.label
        if self.predict is None:
            self.results.write_submission(name, pred)
        else:  # write reused predictions again: the colours may have changed
            self.results.write(name, image.image, pred)
        if label is None:
            return image.number, np.zeros((self.label_map.classes,) * 2, np.int64)
        ignore_label = self.label_map.ignore_label
        return image.number, count_pixels(
            pred, label, classes=self.label_map.classes, ignore_label=ignore_label
        )

    def _collect(self, future: Future) -> None:
        number, matrix = future.result()
        self.counts.add(matrix, image=number)
        self.done += 1

    def _accuracy(self) -> str:
        """Format the accuracy so far for the log; empty without labels."""
        matrix = self.counts.total.matrix.numpy()
        total = matrix.sum()
        return f" Accuracy {matrix.trace() / total:.4f}" if total else ""


def read_ahead(
    pool: Executor, work: Callable[[Item], Output], items: Iterable[Item], *, room: int
) -> Iterator[Output]:
    """Yield work(item) for each item in order, computing up to `room` items ahead in `pool`."""
    waiting: deque[Future] = deque()
    for item in items:
        waiting.append(pool.submit(work, item))
        if len(waiting) > room:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
