"""Runs over the images of a test: predict or find what was predicted, write it, count it."""

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from util.data.label_map import LabelMap
from util.data.list_file import Sample
from util.data.load import check_first, load
from util.evaluation.result_folder import ResultFolder
from util.logger import Progress
from util.metric import ImageCounts, count_pixels

READERS, WRITERS = 2, 3  # threads: encoding an image's three PNGs costs more than decoding it

log = logging.getLogger("semseg")
Item = TypeVar("Item")
Output = TypeVar("Output")


@dataclass(frozen=True)
class LoadedImage:
    """Image `number` of the test, RGB (H, W, 3), its label (H, W) if there is one, and an earlier
    prediction (H, W) that serves."""

    number: int
    image: np.ndarray
    label: np.ndarray | None
    pred: np.ndarray | None


class Evaluator:
    """The images of a test, whose results have `names`; one of several processes or the only one.

    Threads read and write beside the network, a few images at a time. `counts`, `done` (images)
    and `predicted` (how many of them were predicted, not found) are those so far.

    Args:
        predict: (H, W, 3) uint8 -> ids (H, W); None: all predictions are there already.
        skip_existing: predictions that are there and serve are not made again.
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
    ) -> None:
        self.samples, self.names, self.results = samples, names, results
        self.predict, self.skip_existing = predict, skip_existing
        self.label_map, self.like = label_map, check_first(samples, label_map)
        self.counts = ImageCounts(label_map.classes, label_map.ignore_label)
        self.done = self.predicted = 0

    def run(self, numbers: Iterable[int], *, print_freq: int, share: int, is_main: bool) -> None:
        """The images of these numbers, about `share` of them; other processes may take those
        between. Raises UserError; an error of a thread ends the run within a few images."""
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
                    self._take(written.popleft())
                if i % print_freq == 0 or image.number + 1 == len(self.samples):
                    place = f"[{image.number + 1}/{len(self.samples)}]"
                    log.info(f"Test: {place} {progress.line()}{self._accuracy()}")
            for future in written:
                self._take(future)

    def read(self, number: int) -> LoadedImage:
        """Decode an image, its label and an earlier prediction. Raises DataError."""
        image, label = load(self.samples[number], self.label_map, like=self.like)
        name, pred = self.names[number], None
        if self.predict is None:
            pred = self.results.read(name, image)
        elif self.skip_existing:
            pred = self.results.find(name, image)
        return LoadedImage(number, image, label, pred)

    def load(self, number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """A labelled image after the test: RGB (H, W, 3), label and prediction (H, W)."""
        image, label = load(self.samples[number], self.label_map)
        assert label is not None
        return image, label, self.results.read(self.names[number], image)

    def _write_and_count(self, image: LoadedImage, pred: np.ndarray) -> tuple[int, np.ndarray]:
        """The image's number, and its pixels by label and prediction (0 without a label)."""
        name, label = self.names[image.number], image.label
        if self.predict is None:
            self.results.write_submission(name, pred)
        else:  # those that were found, too: other colours may be asked for
            self.results.write(name, image.image, pred)
        if label is None:
            return image.number, np.zeros((self.label_map.classes,) * 2, np.int64)
        ignore_label = self.label_map.ignore_label
        return image.number, count_pixels(
            pred, label, classes=self.label_map.classes, ignore_label=ignore_label
        )

    def _take(self, future: Future) -> None:
        number, matrix = future.result()
        self.counts.add_matrix(matrix, image=number)
        self.done += 1

    def _accuracy(self) -> str:
        """Over the labelled images counted so far, for the log."""
        matrix = self.counts.total.matrix.numpy()
        total = matrix.sum()
        return f" Accuracy {matrix.trace() / total:.4f}" if total else ""


def read_ahead(
    pool: Executor, work: Callable[[Item], Output], items: Iterable[Item], *, room: int
) -> Iterator[Output]:
    """work(item) of every item, in their order; the next `room` ones are under way meanwhile."""
    waiting: deque[Future] = deque()
    for item in items:
        waiting.append(pool.submit(work, item))
        if len(waiting) > room:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
