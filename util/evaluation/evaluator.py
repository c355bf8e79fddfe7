"""Runs over the images of a test: predict or find what was predicted, write it, count it."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from threading import Lock

import numpy as np

from util.data.label_map import LabelMap
from util.data.list_file import Sample
from util.data.load import check_first, load
from util.evaluation.pipeline import Threads
from util.evaluation.result_folder import ResultFolder
from util.logger import Progress, RunLogger
from util.metric import ImageCounts, count_pixels

READERS, WRITERS = 2, 3  # threads: encoding an image's three PNGs costs more than decoding it


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

    Reading and writing go on beside the network. `counts`, `done` (images) and `predicted` (how
    many of them were predicted, not found) speak of what has been done so far.

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
        self._lock = Lock()  # of the counts

    def run(
        self, numbers: Iterable[int], logger: RunLogger, *, print_freq: int, share: int
    ) -> None:
        """The images of these numbers, about `share` of them; other processes may take those
        between. Raises DataError."""
        progress = Progress(done=0, total=share, active=logger.active)
        with Threads(READERS, waiting=1) as readers, Threads(WRITERS, waiting=1) as writers:
            images = readers.ahead(self.read, numbers)
            for i, image in enumerate(progress.steps(images, length=share, title="Test"), 1):
                pred = image.pred
                if pred is None:
                    assert self.predict is not None
                    pred = self.predict(image.image)
                    self.predicted += 1
                writers.behind(self.finish, image, pred)
                self.done += 1
                if i % print_freq == 0 or image.number + 1 == len(self.samples):
                    place = f"[{image.number + 1}/{len(self.samples)}]"
                    logger.info(f"Test: {place} {progress.line()}{self._accuracy()}")

    def read(self, number: int) -> LoadedImage:
        """Decode an image, its label and an earlier prediction. Raises DataError."""
        image, label = load(self.samples[number], self.label_map, like=self.like)
        name, pred = self.names[number], None
        if self.predict is None:
            pred = self.results.read(name, image.shape[:2])
        elif self.skip_existing:
            pred = self.results.find(name, image)
        return LoadedImage(number, image, label, pred)

    def finish(self, image: LoadedImage, pred: np.ndarray) -> None:
        """Write a prediction that is new, and count it."""
        name = self.names[image.number]
        if image.pred is None:
            self.results.write(name, image.image, pred)
        self.results.write_submission(name, pred)
        if image.label is not None:
            meant = self.label_map
            matrix = count_pixels(
                pred, image.label, classes=meant.classes, ignore_label=meant.ignore_label
            )
            with self._lock:
                self.counts.add_matrix(matrix, image=image.number)

    def load(self, number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """A labelled image after the test: RGB (H, W, 3), label and prediction (H, W)."""
        image, label = load(self.samples[number], self.label_map)
        assert label is not None
        return image, label, self.results.read(self.names[number], image.shape[:2])

    def _accuracy(self) -> str:
        """Over the labelled images counted so far, for the log."""
        with self._lock:
            matrix = self.counts.total.matrix.numpy()
            total = matrix.sum()
            return f" Accuracy {matrix.trace() / total:.4f}" if total else ""
