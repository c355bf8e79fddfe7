"""The evaluator: background reading and writing, and checkpoints replaced while loading."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conftest import write_pair
from util.data.label_map import LabelMap
from util.data.list_file import Sample
from util.error import CheckpointError, DataError
from util.evaluation.evaluator import READERS, WRITERS, Evaluator, read_ahead
from util.evaluation.protocol import load_checkpoint
from util.evaluation.result_folder import ResultFolder
from util.palette import distinct_colors


def test_results_come_in_the_order_of_items_and_reading_ahead_is_bounded() -> None:
    begun: list[int] = []

    def work(i: int) -> int:
        begun.append(i)
        time.sleep(0.02 if i % 3 == 0 else 0)
        return i * i

    with ThreadPoolExecutor(3) as pool:
        for done, square in enumerate(read_ahead(pool, work, range(20), room=2)):
            assert square == done * done
            assert len(begun) <= done + 3


@pytest.fixture
def evaluator(tmp_path: Path, rng: np.random.Generator) -> Evaluator:
    """Build an evaluator of 40 images of a single class."""
    image, label = rng.integers(0, 256, (20, 30, 3), np.uint8), np.zeros((20, 30), np.uint8)
    write_pair(tmp_path, "a", image, label)
    sample = Sample(tmp_path / "images/a.png", tmp_path / "labels/a.png")
    protocol = {"checkpoint": "a.pth", "checkpoint_sha256": "1f"}
    names = [f"p{i}" for i in range(40)]
    return Evaluator(
        [sample] * 40,
        names,
        results=ResultFolder(tmp_path / "out", protocol, distinct_colors(2)),
        predict=lambda image: np.zeros(image.shape[:2], np.uint8),
        skip_existing=False,
        label_map=LabelMap(classes=2, ignore_label=255),
    )


def run(evaluator: Evaluator) -> None:
    evaluator.run(range(40), print_freq=100, share=40, is_main=False)


def test_all_images_are_counted(evaluator: Evaluator) -> None:
    run(evaluator)
    assert (evaluator.done, evaluator.predicted) == (40, 40)
    assert evaluator.counts.total.matrix.tolist() == [[40 * 600, 0], [0, 0]]
    assert len(list(evaluator.results.path.rglob("*.png"))) == 3 * 40


def test_a_writer_that_fails_ends_the_run_within_a_few_images(
    evaluator: Evaluator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(self: ResultFolder, name: str, image: np.ndarray, pred: np.ndarray) -> None:
        if name == "p3":
            raise OSError(28, "No space left on device", f"{name}.png")

    monkeypatch.setattr(ResultFolder, "write", write)
    with pytest.raises(OSError, match=r"No space left on device: 'p3\.png'"):
        run(evaluator)
    assert evaluator.predicted <= 3 + 1 + WRITERS + 1


def test_the_last_image_fails_too(evaluator: Evaluator, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(self: ResultFolder, name: str, image: np.ndarray, pred: np.ndarray) -> None:
        if name == "p39":
            raise DataError("the last one")

    monkeypatch.setattr(ResultFolder, "write", write)
    with pytest.raises(DataError, match="the last one"):
        run(evaluator)


def test_writing_behind_is_bounded(evaluator: Evaluator, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow disk does not make memory grow."""
    gate, most = threading.Event(), []

    def write(self: ResultFolder, name: str, image: np.ndarray, pred: np.ndarray) -> None:
        most.append(evaluator.predicted - evaluator.done)
        if not gate.wait(0.3):
            gate.set()  # by now the network is as far ahead as allowed

    monkeypatch.setattr(ResultFolder, "write", write)
    run(evaluator)
    assert evaluator.done == 40 and max(most) <= WRITERS + 2


def test_an_interruption_ends_the_run_soon(evaluator: Evaluator) -> None:
    read = []

    def interrupt(image: np.ndarray) -> np.ndarray:
        raise KeyboardInterrupt

    evaluator.predict, load = interrupt, evaluator.read
    evaluator.read = lambda number: read.append(number) or load(number)
    with pytest.raises(KeyboardInterrupt):
        run(evaluator)
    assert len(read) <= READERS + 1 and evaluator.done == 0


class Training:
    """A training that replaces its checkpoints while they are read."""

    def __init__(self, folder: Path, *, replacements: int) -> None:
        self.folder, self.left, self.epoch = folder, replacements, 1
        self.save()

    @property
    def path(self) -> Path:
        return self.folder / f"train_epoch_{self.epoch}.pth"

    def save(self) -> None:
        torch.save({"epoch": self.epoch}, self.path)

    def find(self) -> str:
        return str(self.path)

    def load(self, path: str) -> int:
        self.go_on()
        try:
            epoch = torch.load(path, weights_only=True)["epoch"]
        except FileNotFoundError:
            raise CheckpointError(f"no weight file {path}") from None
        self.go_on()
        return epoch

    def go_on(self) -> None:
        if self.left:
            self.left -= 1
            self.path.unlink()
            self.epoch += 1
            self.save()


@pytest.mark.parametrize("replacements", range(4))
def test_a_checkpoint_is_read_while_a_training_replaces_it(
    tmp_path: Path, replacements: int
) -> None:
    training = Training(tmp_path, replacements=replacements)
    path, digest, epoch = load_checkpoint(training.find, training.load)
    assert (path, epoch) == (str(training.path), replacements + 1) and len(digest) == 64


def test_missing_or_constantly_replaced_checkpoint(tmp_path: Path) -> None:
    training = Training(tmp_path, replacements=1000)
    with pytest.raises(CheckpointError, match=r"no weight file|replaced faster"):
        load_checkpoint(training.find, training.load)
    training.left = 0
    with pytest.raises(CheckpointError, match="no weight file"):
        load_checkpoint(lambda: str(tmp_path / "none.pth"), training.load)


def test_a_file_that_is_overwritten_in_place_is_read_again(tmp_path: Path) -> None:
    """best.pth keeps its name."""
    path, epochs = tmp_path / "best.pth", iter(range(2, 4))
    torch.save({"epoch": 1}, path)

    def load(name: str) -> int:
        epoch = torch.load(name, weights_only=True)["epoch"]
        if epoch < 3:
            torch.save({"epoch": next(epochs)}, path.with_name("new"))
            path.with_name("new").replace(path)
        return epoch

    assert load_checkpoint(lambda: str(path), load)[2] == 3
