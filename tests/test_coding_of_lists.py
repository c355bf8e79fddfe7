"""Lists, and predictions, whose palettes contradict each other are not trained on or scored."""

from pathlib import Path

import numpy as np
import pytest

from tests.conftest import RunTool, assert_one_sentence
from tests.helpers.faults import COLORS, Data
from tests.helpers.files import PNG_PALETTE, write_png
from tests.helpers.runs import with_weights
from util.data.image import read_label
from util.error import DataError
from util.evaluation.protocol import UNKNOWN_PROTOCOL
from util.evaluation.result_folder import ResultFolder
from util.palette import distinct_colors


def write_colors(path: Path, classes: np.ndarray, order: list[int]) -> None:
    """Write classes in their colours, class order[i] as index i."""
    index = np.argsort(order).astype(np.uint8)
    palette = COLORS[order].ravel().tolist()
    write_png(path, index[np.minimum(classes, 2)], 8, kind=PNG_PALETTE, palette=palette)


@pytest.fixture
def two_lists(tiny: Path) -> Path:
    """The palette of the validation labels has two classes swapped."""
    root, lines = tiny.parent / "data", []
    for i in range(4):
        label = read_label(root / f"labels/p{i}.png")
        write_colors(root / f"other/p{i}.png", label, [0, 2, 1])
        write_colors(root / f"labels/p{i}.png", label, [0, 1, 2])
        lines.append(f"images/p{i}.png other/p{i}.png\n")
    (root / "val.txt").write_text("".join(lines))
    return tiny


def test_training_compares_the_palettes_of_both_lists(two_lists: Path, run_tool: RunTool) -> None:
    words = ["train", "--config", two_lists, "TRAIN.evaluate"]
    code, _, err = run_tool(*words, "True")
    parts = ("other/p0.png (and 3 more of 8)", "0 0 128 for index 1", "labels/p0.png has 0 128 0")
    assert_one_sentence(code, err, *parts, "DATA.label_map: a file with a line `R G B id`")
    assert run_tool(*words, "False")[0] == 0


def test_a_test_compares_palettes_with_those_of_a_training_list_if_there_is_one(
    two_lists: Path, run_tool: RunTool
) -> None:
    with_weights(two_lists)
    words = ["test", "--config", two_lists, "TEST.index_step", 1]
    assert_one_sentence(*run_tool(*words)[::2], "other/p0.png has a palette", "labels/p0.png")
    for i in range(1, 4):  # a training list of which little is left
        (two_lists.parent / f"data/labels/p{i}.png").unlink()
    assert_one_sentence(*run_tool(*words)[::2], "other/p0.png has a palette", "labels/p0.png")
    assert run_tool(*words, "DATA.train_list", "gone.txt")[0] == 0
    assert run_tool(*words, "TEST.split", "test")[0] == 0


# Predictions of other programs --------------------------------------------------------------------


@pytest.fixture
def predicted(tmp_path: Path) -> tuple[Data, list[object]]:
    """The data, and the words of a test of predictions that hold the labels' classes."""
    data = Data(tmp_path / "d", val=3)
    out = tmp_path / "out"
    for i in range(3):
        write_colors(out / f"gray/{i}.png", data.ids(3), [0, 1, 2])
    words = ["test", "--config", data.config, "TEST.has_prediction", "True"]
    return data, [*words, "TEST.save_folder", out]


def test_predictions_whose_palettes_contradict_each_other_are_refused(
    predicted: tuple[Data, list[object]], run_tool: RunTool
) -> None:
    data, words = predicted
    assert run_tool(*words)[0] == 0
    path = words[-1] / "gray/1.png"
    write_colors(path, data.ids(3), [0, 2, 1])
    code, _, err = run_tool(*words)
    assert_one_sentence(code, err, f"prediction {path} has a palette", "of class ids", "index 1")


def test_predictions_whose_palettes_contradict_the_class_colours_are_refused(
    predicted: tuple[Data, list[object]], run_tool: RunTool, tmp_path: Path
) -> None:
    data, words = predicted
    np.savetxt(tmp_path / "colors.txt", COLORS, fmt="%d")
    words += ["TEST.colors_path", tmp_path / "colors.txt"]
    assert run_tool(*words)[0] == 0
    for path in tmp_path.glob("out/gray/*.png"):
        write_colors(path, data.ids(3), [0, 2, 1])
    code, _, err = run_tool(*words)
    assert_one_sentence(code, err, "gray/0.png (and 2 more of 3) has a palette", "is class 2")


def test_a_prediction_beyond_the_first_is_refused_when_it_is_read(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    names, image = [str(i) for i in range(40)], rng.integers(0, 255, (24, 32, 3), np.uint8)
    for name in names:
        order = [0, 2, 1] if name == "1" else [0, 1, 2]
        write_colors(tmp_path / f"gray/{name}.png", Data.ids(3), order)
    results = ResultFolder(tmp_path, UNKNOWN_PROTOCOL, distinct_colors(3))
    like = results.check_first(names)
    assert results.read("0", image, like=like).max() == 2
    with pytest.raises(DataError, match=r"prediction .*gray/1\.png has a palette"):
        results.read("1", image, like=like)
    assert results.check_first(["none"]) is None
