"""The result folder: atomic files, one protocol, no file of the user overwritten."""

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from util.data.image import read_image, read_label, read_note, write_image, write_label
from util.error import ConfigError, DataError
from util.evaluation.protocol import UNKNOWN_PROTOCOL
from util.evaluation.result_folder import ResultFolder, read_protocol
from util.palette import colorize, distinct_colors

PROTOCOL = {"checkpoint": "a.pth", "checkpoint_sha256": "1f", "scales": (0.5, 1.0), "flip": True}


@pytest.fixture
def image(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 256, (20, 30, 3), np.uint8)


@pytest.fixture
def pred(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 3, (20, 30)).astype(np.uint8)


def folder(path: Path, **changed: object) -> ResultFolder:
    return ResultFolder(path, {**PROTOCOL, **changed}, distinct_colors(3), np.array([7, 8, 300]))


def write(results: ResultFolder, image: np.ndarray, pred: np.ndarray) -> None:
    results.write("city/a", image, pred)


def test_written_predictions_are_found(tmp_path: Path, image: np.ndarray, pred: np.ndarray) -> None:
    results = folder(tmp_path)
    assert results.find("city/a", image) is None
    write(results, image, pred)
    np.testing.assert_array_equal(results.find("city/a", image), pred)
    np.testing.assert_array_equal(results.read("city/a", image), pred)
    # The same weights in another place, with another number of windows per forward pass.
    same = folder(tmp_path, checkpoint="elsewhere/a.pth", batch_windows=3)
    assert same.find("city/a", image) is not None
    assert read_image(tmp_path / "color/city/a.png").shape == (20, 30, 3)
    saved = read_label(tmp_path / "submission/a.png")
    np.testing.assert_array_equal(saved, np.array([7, 8, 300])[pred])
    assert not list(tmp_path.rglob("*.part"))


FAULTS: dict[str, Callable] = {
    "truncated": lambda gray, pred: gray.write_bytes(gray.read_bytes()[:-40]),
    "empty": lambda gray, pred: gray.write_bytes(b""),
    "made by something else": lambda gray, pred: write_label(gray, pred),
    "wrong size": lambda gray, pred: write_label(gray, pred[:-1], note=read_note(gray)),
    "id out of range": lambda gray, pred: write_label(gray, pred + 1, note=read_note(gray)),
    "colour image": lambda gray, pred: Image.new("RGB", (30, 20), "red").save(gray),
    "gone": lambda gray, pred: gray.unlink(),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_truncated_predictions_are_neither_found_nor_scored(
    tmp_path: Path, image: np.ndarray, pred: np.ndarray, fault: str
) -> None:
    results = folder(tmp_path)
    write(results, image, pred)
    FAULTS[fault](results.gray("city/a"), pred)
    assert results.find("city/a", image) is None
    what = "is a colour image, not class ids" if fault == "colour image" else ""
    with pytest.raises(DataError, match=what):
        results.read("city/a", image)


def test_a_prediction_of_other_weights_or_another_image_is_neither_found_nor_scored(
    tmp_path: Path, image: np.ndarray, pred: np.ndarray
) -> None:
    """Also if it is from a run whose protocol.json no longer exists."""
    results = folder(tmp_path)
    for other in (folder(tmp_path, checkpoint_sha256="2e"), folder(tmp_path, scales=[0.25])):
        write(other, image, pred)
        assert results.find("city/a", image) is None
        with pytest.raises(DataError, match=r"was not made as .*protocol.json says"):
            results.read("city/a", image)
    write(results, image + 1, pred)
    assert results.find("city/a", image) is None
    with pytest.raises(DataError, match="or of another image"):
        results.read("city/a", image)


def test_predictions_that_are_found_get_the_colours_asked_for(
    tmp_path: Path, image: np.ndarray, pred: np.ndarray
) -> None:
    write(folder(tmp_path), image, pred)
    (tmp_path / "overlay/city/a.png").unlink()
    other = ResultFolder(tmp_path, PROTOCOL, distinct_colors(4)[1:])
    found = other.find("city/a", image)
    assert found is not None
    other.write("city/a", image, found)
    shown = read_image(tmp_path / "color/city/a.png")
    np.testing.assert_array_equal(shown, colorize(pred, distinct_colors(4)[1:]))
    assert (tmp_path / "overlay/city/a.png").is_file()


def test_a_prediction_of_unknown_origin_that_cannot_be_scored(
    tmp_path: Path, image: np.ndarray, pred: np.ndarray
) -> None:
    results = ResultFolder(tmp_path, UNKNOWN_PROTOCOL, distinct_colors(3))
    with pytest.raises(DataError, match=r"no prediction .*TEST.has_prediction"):
        results.read("a", image)
    write_label(results.gray("a"), pred)
    np.testing.assert_array_equal(results.read("a", image), pred)
    with pytest.raises(DataError, match="is 30x20, its image is 30x19"):
        results.read("a", image[1:])
    write_label(results.gray("a"), pred + 1)
    with pytest.raises(DataError, match=r"holds id 3, but DATA.classes is 3"):
        results.read("a", image)


def test_a_folder_has_one_protocol(tmp_path: Path, image: np.ndarray, pred: np.ndarray) -> None:
    first, other = folder(tmp_path), folder(tmp_path, checkpoint_sha256="9" * 64, scales=[1.0])
    other.open(["city/a"], [])
    first.open(["city/a"], [])  # the other one has not predicted anything
    write(first, image, pred)
    first.open(["city/a", "b"], [])
    folder(tmp_path, checkpoint="b.pth", batch_windows=3).open(["city/a"], [])
    before = (tmp_path / "protocol.json").read_bytes()
    with pytest.raises(ConfigError) as caught:
        other.open(["city/a"], [])
    for part in (
        "checkpoint_sha256 (there 1f, now 999999999999...)",
        "scales (there [0.5, 1.0], now [1.0])",
        "choose another TEST.save_folder, or remove that folder",
    ):
        assert part in str(caught.value)
    assert (tmp_path / "protocol.json").read_bytes() == before


@pytest.mark.parametrize(
    "content", ["{", "[]", '"text"', "3", "{}", '{"scales": [1.0]}', "[" * 10**5, "null"]
)
def test_damaged_protocol_is_reported(tmp_path: Path, content: str) -> None:
    (tmp_path / "protocol.json").write_text(content)
    for call in (
        lambda: read_protocol(tmp_path),
        lambda: folder(tmp_path).open([], []),
        lambda: folder(tmp_path).open_existing([]),
    ):
        with pytest.raises(ConfigError, match=r"protocol.json is damaged or not from a test"):
            call()
    assert (tmp_path / "protocol.json").read_text() == content


FILES = ["gray/a.png", "color/a.png", "overlay/a.png", "submission/a.png", "config.yaml"]


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_the_users_is_not_overwritten(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("mine")
    with pytest.raises(ConfigError, match=rf"TEST.save_folder: {path} exists and is not a result"):
        folder(tmp_path).open(["a"], [])
    assert path.read_text() == "mine"


def test_labels_that_are_predictions_of_an_earlier_run_are_not_overwritten(
    tmp_path: Path, image: np.ndarray, pred: np.ndarray
) -> None:
    """Even if the folder has the same protocol, and also through a symlink."""
    results = folder(tmp_path / "out")
    results.open(["city/a"], [])
    write(results, image, pred)
    (tmp_path / "labels").symlink_to(tmp_path / "out/gray")
    for label in (results.gray("city/a"), tmp_path / "labels/city/a.png"):
        with pytest.raises(ConfigError, match="is one of the input files"):
            results.open(["city/a"], [label])
    results.open(["city/a"], [tmp_path / "city/a.png"])


@pytest.mark.parametrize("name", ["../a", "city/../../a", "/tmp/a"])
def test_a_result_outside_of_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=f"result {name} would lie outside"):
        folder(tmp_path).open(["b", name], [])


def make_file(path: Path) -> None:
    path.write_text("mine")


PLACES: dict[str, Callable[[Path], None]] = {
    "file": make_file,
    "fifo": lambda path: os.mkfifo(path),
    "loop": lambda path: path.symlink_to(path),
    "dangling link": lambda path: path.symlink_to(path.with_name("nowhere")),
    "link to a device": lambda path: path.symlink_to("/dev/null"),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("below", ["", "sub/folder"])
def test_folder_that_cannot_be_created(tmp_path: Path, place: str, below: str) -> None:
    PLACES[place](tmp_path / "out")
    with pytest.raises(ConfigError, match=r"TEST.save_folder: cannot create the folder .*: choose"):
        folder(tmp_path / "out" / below).open([], [])


def test_full_disk_is_reported_and_leaves_no_partial_file(
    tmp_path: Path, image: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Image.Image, path: Path, **options: object) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(OSError) as caught:
        write_image(tmp_path / "a.png", image)
    assert caught.value.filename == str(tmp_path / "a.png")  # used by run_cli in its message
    assert list(tmp_path.iterdir()) == []


def test_predictions_of_unknown_origin_get_a_protocol_that_says_so(tmp_path: Path) -> None:
    results = ResultFolder(tmp_path, UNKNOWN_PROTOCOL, distinct_colors(3))
    with pytest.raises(ConfigError, match=r"TEST.has_prediction: no predictions"):
        ResultFolder(tmp_path / "none", UNKNOWN_PROTOCOL, distinct_colors(3)).open_existing([])
    write_label(results.gray("a"), np.zeros((4, 4), np.uint8))
    results.open_existing([])
    assert json.loads((tmp_path / "protocol.json").read_text())["checkpoint_sha256"] is None
    results.open_existing([])
    with pytest.raises(ConfigError, match=r"another .*checkpoint_sha256 \(there nothing"):
        folder(tmp_path).open(["a"], [])
