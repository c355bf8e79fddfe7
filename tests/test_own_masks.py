"""Masks from annotation tools: their values become classes, or are rejected with a reason."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from tests.conftest import RunTool
from tests.helpers.own_data import BLACK, BLUE, GREEN, RED, Raw
from tests.helpers.raw_data import files_below, write_ids


@pytest.fixture
def raw(tmp_path: Path, run_tool: RunTool) -> Raw:
    return Raw(tmp_path / "raw", run_tool)


def test_evenly_spread_grays_are_classes(raw: Raw) -> None:
    raw.masks(np.array([[0, 128, 255]], np.uint8))
    code, stdout, _ = raw.prepare()
    assert code == 0 and "classes: 3" in stdout and "void: nothing" in stdout
    assert raw.label().tolist() == [[0, 1, 2]]


def test_255_among_ids_is_void_and_reported(raw: Raw) -> None:
    raw.masks(np.array([[0, 1, 7, 255]], np.uint8))
    code, stdout, _ = raw.prepare()
    assert code == 0 and "classes: 3 (class 0, class 1, class 7); void: 255" in stdout
    assert raw.label().tolist() == [[0, 1, 2, 255]]
    assert raw.prepare("--void", "none", out="all")[0] == 0
    assert raw.label(out="all").tolist() == [[0, 1, 2, 3]]


def test_ids_from_1_with_or_without_0_for_no_data(raw: Raw, tmp_path: Path) -> None:
    (tmp_path / "n.txt").write_text("a\nb\nc\n")
    names = ("--names", tmp_path / "n.txt")
    raw.masks(np.array([[0, 1, 2, 3]], np.uint8))
    raw.refused("ids 0..3, one more than the 3", "--void 0 if 0 means no data", words=names)
    assert raw.prepare(*names, "--void", 0)[0] == 0
    assert raw.label().tolist() == [[255, 0, 1, 2]]
    raw.masks(np.array([[1, 2, 3, 255]], np.uint8))
    assert raw.prepare(*names, out="from1")[0] == 0
    assert raw.label(out="from1").tolist() == [[0, 1, 2, 255]]


def test_palettes_and_rgb_masks_give_the_same_classes(raw: Raw, tmp_path: Path) -> None:
    """The given colours determine the class, independent of the palette's order."""
    (tmp_path / "c.txt").write_text("0 255 0 road\n255 0 0 car\n0 0 0 background\n")
    colors = ("--colors", tmp_path / "c.txt")
    palette, ids = [*BLACK, *RED, *GREEN], np.array([[0, 1, 2]], np.uint8)
    raw.masks(ids, palette=palette)
    assert raw.prepare(*colors)[0] == 0
    raw.masks(np.array(palette, np.uint8).reshape(-1, 3)[ids])
    assert raw.prepare(*colors, out="rgb")[0] == 0
    assert raw.label().tolist() == raw.label(out="rgb").tolist() == [[2, 1, 0]]
    raw.masks(ids, palette=[*BLACK, *RED, *BLUE])
    raw.refused("holds colour 0 0 255", words=colors, out="other")


def test_rgb_masks_of_which_some_show_only_black(raw: Raw) -> None:
    raw.masks(np.array([[BLACK, RED]], np.uint8))
    Image.fromarray(np.zeros((1, 2, 3), np.uint8)).save(raw.root / "masks/0.png")
    assert raw.prepare()[0] == 0
    assert raw.label().tolist() == [[0, 0]] and raw.label("1").tolist() == [[0, 1]]


@pytest.mark.parametrize("colors", [False, True])
def test_smoothed_masks_are_refused(raw: Raw, colors: bool) -> None:
    label = np.zeros((48, 64), np.uint8)
    label[10:30, 20:50] = 255
    label = cv2.GaussianBlur(label, (0, 0), 0.7)
    raw.masks(np.stack((label, 255 - label, label * 0), -1) if colors else label)
    raw.refused("different values, like a photo or smoothed edges", "save masks as PNG")


def test_jpeg_masks_are_refused(raw: Raw) -> None:
    raw.masks(np.array([[0, 1, 2]], np.uint8))
    for path in sorted((raw.root / "masks").iterdir()):
        Image.open(path).save(path.with_suffix(".jpg"))
        path.unlink()
    raw.refused("JPEG")


def test_inputs_are_not_changed(raw: Raw) -> None:
    for i in range(3):
        raw.pair(f"images/{i}.jpg", f"masks/{i}.png")
    before = files_below(raw.root)
    assert raw.prepare("--copy")[0] == 0 and raw.prepare(out="linked")[0] == 0
    assert files_below(raw.root) == before


def test_turned_photos_keep_their_side(raw: Raw) -> None:
    """EXIF orientation: masks drawn on the displayed image fit; others are rejected."""
    exif = Image.Exif()
    exif[0x0112] = 6
    for i in range(3):
        raw.pair(f"images/{i}.jpg", f"masks/{i}.png")
        Image.new("RGB", (6, 8)).save(raw.root / f"images/{i}.jpg", exif=exif)
    assert raw.prepare()[0] == 0
    write_ids(raw.root / "masks/0.png", 0, 1)
    Image.open(raw.root / "masks/0.png").transpose(Image.Transpose.ROTATE_90).save(
        raw.root / "masks/0.png"
    )
    raw.refused("EXIF orientation 6", "masks/0.png", out="other")
