"""The values of masks, and the classes that prepare_folder.py derives from them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import RunTool
from tests.helpers.photos import (
    BLACK,
    BLUE,
    NAMES,
    RED,
    label_path,
    made,
    names_of,
    options,
    write_photos,
)
from tests.helpers.raw_data import (
    assert_label,
    write_colors,
    write_ids,
    write_image,
)


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return write_photos(tmp_path / "raw")


def colors_of(raw: Path) -> list[str]:
    return (raw.parent / "dataset/mine_colors.txt").read_text().splitlines()


@pytest.mark.parametrize("given", [True, False])
def test_colors(raw: Path, run_tool: RunTool, tmp_path: Path, given: bool) -> None:
    for name in NAMES:
        write_colors(raw / f"masks/{name}.png", BLACK, RED, BLUE)
    more: list[object] = []
    if given:
        (tmp_path / "c.txt").write_text("200 0 0 car\n0 0 0 void\n0 0 200 open sky\n")
        more = ["--colors", tmp_path / "c.txt"]
    assert run_tool("prepare_folder", *options(raw, *more))[0] == 0
    if given:
        assert_label(label_path(raw, NAMES[0]), 255, 0, 1)
        assert (names_of(raw), colors_of(raw)) == (["car", "open sky"], ["200 0 0", "0 0 200"])
        return
    assert_label(label_path(raw, NAMES[0]), 0, 2, 1)
    assert names_of(raw) == ["color 0 0 0", "color 0 0 200", "color 200 0 0"]
    assert colors_of(raw) == ["0 0 0", "0 0 200", "200 0 0"]


def test_void_values(raw: Path, run_tool: RunTool) -> None:
    for name in NAMES:
        write_colors(raw / f"masks/{name}.png", BLACK, RED, BLUE)
    assert run_tool("prepare_folder", *options(raw, "--void", "0,0,0"))[0] == 0
    assert_label(label_path(raw, NAMES[0]), 255, 1, 0)


def test_ids_from_one_with_void_zero(raw: Path, run_tool: RunTool) -> None:
    for name in NAMES:
        write_ids(raw / f"masks/{name}.png", 0, 1, 7)
    assert run_tool("prepare_folder", *options(raw, "--void", "0"))[0] == 0
    assert_label(label_path(raw, NAMES[0]), 255, 0, 1)
    assert names_of(raw) == ["class 1", "class 7"]


def test_masks_of_0_and_255(raw: Path, run_tool: RunTool) -> None:
    for name in NAMES:
        write_ids(raw / f"masks/{name}.png", 0, 255)
    assert run_tool("prepare_folder", *options(raw))[0] == 0
    assert_label(label_path(raw, NAMES[0]), 0, 1)
    assert names_of(raw) == ["class 0", "class 255"]


def test_palettes_give_the_colors(raw: Path, run_tool: RunTool) -> None:
    for name in NAMES:
        write_ids(raw / f"masks/{name}.png", 0, 1, 255, palette=[*BLACK, *RED])
    assert run_tool("prepare_folder", *options(raw))[0] == 0
    assert_label(label_path(raw, NAMES[0]), 0, 1, 255)
    assert colors_of(raw) == ["0 0 0", "200 0 0"]


def test_palettes_that_differ_mean_colors(raw: Path, run_tool: RunTool) -> None:
    for i, name in enumerate(NAMES):
        palette = [*BLUE, *RED] if i % 2 else [*RED, *BLUE]
        write_ids(raw / f"masks/{name}.png", 0, 1, palette=palette)
    assert run_tool("prepare_folder", *options(raw))[0] == 0
    assert_label(label_path(raw, NAMES[0]), 1, 0)
    assert_label(label_path(raw, NAMES[1]), 0, 1)


def test_16_bit_and_1_bit_masks(raw: Path, run_tool: RunTool) -> None:
    ids = np.array([[0, 1000], [7, 7]], np.uint16)
    for name in NAMES:
        write_image(raw / f"photos/{name}.jpg", size=(2, 2))
        Image.fromarray(ids).save(made(raw / f"masks/{name}.png"))
    assert run_tool("prepare_folder", *options(raw))[0] == 0
    assert np.array(Image.open(label_path(raw, NAMES[0]))).tolist() == [[0, 2], [1, 1]]
    for name in NAMES:
        Image.fromarray(ids > 0).save(raw / f"masks/{name}.png")
    words = options(raw)
    words[words.index("--out") + 1] = raw.parent / "bits"
    assert run_tool("prepare_folder", *words)[0] == 0
    assert (raw.parent / "bits_names.txt").read_text() == "class 0\nclass 1\n"
