"""Runs over the pictures of a test: predict or find what was predicted, write it, count it."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from threading import Lock

import numpy as np

from util.dataset import load_label
from util.image import check_sizes, read_image
from util.label_map import LabelMap
from util.logger import Progress, RunLogger
from util.metric import PictureCounts, count_pixels
from util.pipeline import Threads
from util.results import ResultFolder
from util.samples import Sample

READERS, WRITERS = 2, 3  # threads: encoding a picture's three PNGs costs more than decoding it


@dataclass(frozen=True)
class Picture:
    """Picture `number` of the test, RGB (H, W, 3), its label (H, W) if there is one, and an earlier
    prediction (H, W) that serves."""

    number: int
    image: np.ndarray
    label: np.ndarray | None
    pred: np.ndarray | None


class Tester:
    """The pictures of a test, whose results have `names`; one of several processes or the only one.

    Reading and writing go on beside the network. `counts`, `done` (pictures) and `predicted` (how
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
        classes: int,
    ) -> None:
        self.samples, self.names, self.results = samples, names, results
        self.predict, self.skip_existing = predict, skip_existing
        self.label_map, self.classes = label_map, classes
        self.counts = PictureCounts(classes, label_map.ignore_label)
        self.done = self.predicted = 0
        self._lock = Lock()  # of the counts

    def run(
        self, numbers: Iterable[int], logger: RunLogger, *, print_freq: int, share: int
    ) -> None:
        """The pictures of these numbers, about `share` of them; other processes may take those
        between. Raises DataError."""
        progress = Progress(done=0, total=share, active=logger.active)
        with Threads(READERS, waiting=1) as readers, Threads(WRITERS, waiting=1) as writers:
            pictures = readers.ahead(self.read, numbers)
            for i, picture in enumerate(progress.steps(pictures, length=share, title="Test"), 1):
                pred = picture.pred
                if pred is None:
                    assert self.predict is not None
                    pred = self.predict(picture.image)
                    self.predicted += 1
                writers.behind(self.finish, picture, pred)
                self.done += 1
                if i % print_freq == 0 or picture.number + 1 == len(self.samples):
                    place = f"[{picture.number + 1}/{len(self.samples)}]"
                    logger.info(f"Test: {place} {progress.line()}{self._accuracy()}")

    def read(self, number: int) -> Picture:
        """Decode a picture, its label and an earlier prediction. Raises DataError."""
        name, (image, label), pred = self.names[number], self._decode(number), None
        if self.predict is None:
            pred = self.results.read(name, image.shape[:2])
        elif self.skip_existing:
            pred = self.results.find(name, image)
        return Picture(number, image, label, pred)

    def finish(self, picture: Picture, pred: np.ndarray) -> None:
        """Write a prediction that is new, and count it."""
        name = self.names[picture.number]
        if picture.pred is None:
            self.results.write(name, picture.image, pred)
        self.results.write_submission(name, pred)
        if picture.label is not None:
            matrix = count_pixels(
                pred, picture.label, classes=self.classes, ignore_label=self.label_map.ignore_label
            )
            with self._lock:
                self.counts.add_matrix(matrix, picture=picture.number)

    def load(self, number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """A labelled picture after the test: RGB (H, W, 3), label and prediction (H, W)."""
        image, label = self._decode(number)
        assert label is not None
        return image, label, self.results.read(self.names[number], image.shape[:2])

    def _decode(self, number: int) -> tuple[np.ndarray, np.ndarray | None]:
        sample = self.samples[number]
        image = read_image(sample.image)
        if sample.label is None:
            return image, None
        label = load_label(sample.label, self.label_map, classes=self.classes)
        check_sizes(image, label, sample.image, sample.label)
        return image, label

    def _accuracy(self) -> str:
        """Over the labelled pictures counted so far, for the log."""
        with self._lock:
            matrix = self.counts.total.matrix.numpy()
            total = matrix.sum()
            return f" Accuracy {matrix.trace() / total:.4f}" if total else ""
