"""tool/browse_data.py: size and content of the contact sheet."""

from pathlib import Path

import numpy as np
import pytest

from tests.conftest import RunTool, assert_one_sentence
from tool.browse_data import caption
from util.data.image import read_image, read_label, write_label
from util.palette import distinct_colors, overlay


def test_sheet_shows_images_labels_and_augmentations(
    tiny: Path, tmp_path: Path, run_tool: RunTool
) -> None:
    sheet = tmp_path / "new/sheet.png"
    code, out, err = run_tool("browse_data", "--config", tiny, "--output", sheet, "--count", "2")
    assert code == 0, err
    assert f"2 of 4 training samples, 3 classes: {sheet}" in out
    shown = read_image(sheet)
    assert shown.shape[1] == 2 * (320 + 6) + 3 * (240 + 6)  # 64x48 and three crops 33x33, 240 high
    # Below two captions, the first row starts with the first image and its overlay.
    data = tmp_path / "data"
    image, label = read_image(data / "images/p0.png"), read_label(data / "labels/p0.png")
    middle = slice(40 + 2, 40 + 240, 5), slice(2, 320, 5)  # centres of the 5x5 blocks of a pixel
    np.testing.assert_array_equal(shown[middle], image)
    middle = middle[0], slice(326 + 2, 326 + 320, 5)
    np.testing.assert_array_equal(shown[middle], overlay(image, label, distinct_colors(3)))
    legend = {tuple(color) for color in shown[-30:].reshape(-1, 3).tolist()}
    assert {tuple(color) for color in distinct_colors(3).tolist()} <= legend


def test_the_same_sheet_again_and_more_than_there_is(
    tiny: Path, tmp_path: Path, run_tool: RunTool
) -> None:
    sheets = [tmp_path / "a.png", tmp_path / "b.png"]
    for sheet in sheets:
        code, out, _ = run_tool("browse_data", "--config", tiny, "--output", sheet, "--count", 99)
        assert code == 0 and "4 of 4" in out
    assert sheets[0].read_bytes() == sheets[1].read_bytes()


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--count", "0"], "--count must be at least 1, got 0"),
        (["--output", "x.jpg"], "--output must end in .png, got x.jpg"),
        (["DATA.train_list", ""], "DATA.train_list is empty"),
    ],
)
def test_mistakes(
    tiny: Path, tmp_path: Path, run_tool: RunTool, words: list[str], part: str
) -> None:
    code, _, err = run_tool("browse_data", "--config", tiny, "--output", tmp_path / "x.png", *words)
    assert_one_sentence(code, err, part)


def test_a_bad_label_is_named(tiny: Path, tmp_path: Path, run_tool: RunTool) -> None:
    write_label(tmp_path / "data/labels/p0.png", np.full((48, 64), 9, np.uint8))
    code, _, err = run_tool("browse_data", "--config", tiny, "--output", tmp_path / "x.png")
    assert_one_sentence(code, err, "p0.png holds id 9")
    assert not (tmp_path / "x.png").exists()


def test_captions_tell_names_apart_in_any_script() -> None:
    names = ["道路.jpg", "建筑.jpg", "дорога.jpg", "طريق.jpg", "größe.jpg", "a\udce9\x1b.jpg"]
    drawn = [caption(name, 300) for name in names]
    assert len({strip.tobytes() for strip in drawn}) == len(names)
    ends = [caption("x" * 300 + end, 200) for end in ("a.png", "b.png")]
    assert not np.array_equal(*ends), "of a long name the end is shown"
