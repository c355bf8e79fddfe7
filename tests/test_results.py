"""The result folder: whole files or none, one protocol, names and ids for a server."""

import errno
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import RunTool, assert_one_sentence
from util.data.image import (
    is_whole_png,
    read_image,
    read_label,
    read_note,
    write_image,
    write_label,
)
from util.data.label_map import load_export, load_label_map
from util.error import ConfigError, DataError
from util.evaluation.result_folder import ResultFolder, check_names
from util.palette import distinct_colors

PROTOCOL = {"checkpoint": "a.pth", "checkpoint_sha256": "1f", "scales": (0.5, 1.0), "flip": True}


@pytest.fixture
def image(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 256, (20, 30, 3), np.uint8)


@pytest.fixture
def pred(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 3, (20, 30)).astype(np.uint8)


def folder(path: Path, **changed: object) -> ResultFolder:
    return ResultFolder(path, {**PROTOCOL, **changed}, distinct_colors(3), np.array([7, 8, 300]))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def test_what_was_written_is_found(tmp_path: Path, image: np.ndarray, pred: np.ndarray) -> None:
    results = folder(tmp_path)
    assert results.find("city/a", image) is None
    results.write("city/a", image, pred)
    np.testing.assert_array_equal(results.find("city/a", image), pred)
    moved = folder(tmp_path, checkpoint="elsewhere/a.pth")  # the same weights in another place
    assert moved.find("city/a", image) is not None
    assert read_image(tmp_path / "color/city/a.png").shape == (20, 30, 3)
    results.write_submission("city/a", pred)
    saved = read_label(tmp_path / "submission/a.png")
    np.testing.assert_array_equal(saved, np.array([7, 8, 300])[pred])
    assert not list(tmp_path.rglob("*.part"))


def test_what_is_not_whole_or_of_something_else_is_not_found(
    tmp_path: Path, image: np.ndarray, pred: np.ndarray
) -> None:
    results = folder(tmp_path)
    gray = results.gray("a")
    faults = {
        "truncated": lambda: cut(gray),
        "empty": lambda: gray.write_bytes(b""),
        "no note": lambda: write_label(gray, pred),
        "wrong size": lambda: write_label(gray, pred[:-1], note=read_note(gray)),
        "id out of range": lambda: write_label(gray, pred + 1, note=read_note(gray)),
        "colour image": lambda: Image.new("RGB", (30, 20)).save(gray),
        "truncated colours": lambda: cut(tmp_path / "color/a.png"),
        "no overlay": lambda: (tmp_path / "overlay/a.png").unlink(),
        "other weights": lambda: folder(tmp_path, checkpoint_sha256="2e").write("a", image, pred),
        "other image": lambda: results.write("a", image + 1, pred),
        "other colours": lambda: replace(results, colors=results.colors + 1).write(
            "a", image, pred
        ),
    }
    for name, break_it in faults.items():
        results.write("a", image, pred)
        assert results.find("a", image) is not None
        break_it()
        assert results.find("a", image) is None, name


def test_a_prediction_that_cannot_be_scored(tmp_path: Path, pred: np.ndarray) -> None:
    results = folder(tmp_path)
    with pytest.raises(DataError, match=r"no prediction .*TEST.has_prediction"):
        results.read("a", (20, 30))
    write_label(results.gray("a"), pred)
    with pytest.raises(DataError, match="is 30x20, its image is 31x20"):
        results.read("a", (20, 31))
    write_label(results.gray("a"), pred + 1)
    with pytest.raises(DataError, match=r"holds id 3, but DATA.classes is 3"):
        results.read("a", (20, 30))


def test_predictions_of_two_protocols_do_not_mix(
    tmp_path: Path, image: np.ndarray, pred: np.ndarray
) -> None:
    first = folder(tmp_path)
    first.claim(skip_existing=True)  # nothing is there yet
    first.write("a", image, pred)
    first.claim(skip_existing=True)
    folder(tmp_path, checkpoint="b.pth").claim(skip_existing=True)
    with pytest.raises(ConfigError) as caught:
        folder(tmp_path, checkpoint_sha256="9" * 64, scales=[1.0]).claim(skip_existing=True)
    for part in ("checkpoint_sha256 (there 1f, now 999999999999...)", "scales (there [0.5, 1.0]"):
        assert part in str(caught.value)
    assert "TEST.skip_existing False" in str(caught.value)
    folder(tmp_path, scales=[1.0]).claim(skip_existing=False)
    with pytest.raises(ConfigError, match="another scales"):
        first.claim(skip_existing=True)
    (tmp_path / "protocol.json").write_text("{")
    with pytest.raises(ConfigError, match=r"no readable protocol.json"):
        first.claim(skip_existing=True)


def test_a_full_disk_is_said_and_leaves_no_half_file(
    tmp_path: Path, image: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Image.Image, path: Path, **options: object) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(OSError) as caught:
        write_image(tmp_path / "a.png", image)
    assert caught.value.filename == str(tmp_path / "a.png")  # what run_cli needs for its sentence
    assert list(tmp_path.iterdir()) == []


def test_notes_and_ends_of_images(tmp_path: Path, pred: np.ndarray) -> None:
    write_label(tmp_path / "a.png", pred, note="made by x")
    assert read_note(tmp_path / "a.png") == "made by x" and is_whole_png(tmp_path / "a.png")
    np.testing.assert_array_equal(read_label(tmp_path / "a.png"), pred)
    write_label(tmp_path / "b.png", pred)
    assert read_note(tmp_path / "b.png") == ""
    cut(tmp_path / "b.png")
    assert not is_whole_png(tmp_path / "b.png") and not is_whole_png(tmp_path / "none.png")


@pytest.mark.parametrize(("name", "classes"), [("cityscapes", 19), ("ade20k", 150)])
def test_an_export_is_the_label_map_backwards(name: str, classes: int) -> None:
    saved = load_export(name, classes=classes)
    assert saved is not None
    label_map = load_label_map(name, ignore_ids=(), classes=classes, ignore_label=255)
    back = label_map.apply(saved.astype(np.uint8), Path("saved.png"))
    np.testing.assert_array_equal(back, np.arange(classes))


def test_exports_by_hand_and_wrong_ones() -> None:
    saved = load_export({0: 5, 1: 6, 2: 0}, classes=3)
    assert saved is not None and saved.tolist() == [5, 6, 0]
    assert load_export("", classes=3) is None
    for setting, part in (
        ({0: 5, 1: 6}, r"names 2 classes, 0\.\.1, but DATA.classes is 3"),
        ("cityscapes", r"names 19 classes, 0\.\.18, but DATA.classes is 3"),
        ({0: 5, 1: 6, 2: 70000}, r"ids 5\.\.70000: PNG files hold 0\.\.65535"),
    ):
        with pytest.raises(ConfigError, match=part):
            load_export(setting, classes=3)


def test_names_that_a_server_knows() -> None:
    official = ["berlin/berlin_000000_000019_leftImg8bit", "bonn/bonn_000000_000019_leftImg8bit"]
    check_names("cityscapes", official)
    check_names({0: 1}, ["a/x", "b/y", "a/x"])
    with pytest.raises(ConfigError, match=r"official names such as berlin.*got x\.png"):
        check_names("cityscapes", ["a/x"])
    with pytest.raises(ConfigError, match="a/x and b/x have the same file name"):
        check_names("ade20k", ["a/x", "b/x"])


def test_a_misspelt_export(tiny: Path, run_tool: RunTool) -> None:
    code, _, err = run_tool("test", "--config", tiny, "TEST.export", "cityscape")
    assert_one_sentence(code, err, "one of cityscapes, ade20k", "nearest: cityscapes")
