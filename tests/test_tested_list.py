"""Which list a test scores: named in its log, the training list if asked for, no image twice."""

from pathlib import Path

import pytest

from tests.conftest import RunTool, assert_one_sentence
from tests.helpers.runs import with_weights
from tests.helpers.tested import scores


@pytest.fixture
def lists(tiny: Path) -> Path:
    """The training list has three images, the validation list one."""
    data = tiny.parent / "data"
    lines = (data / "train.txt").read_text().splitlines()
    (data / "train.txt").write_text("\n".join(lines[:3]))
    (data / "val.txt").write_text(lines[3])
    return with_weights(tiny)


@pytest.mark.parametrize(("split", "images"), [("train", 3), ("val", 1), ("test", 1)])
def test_the_split_chooses_the_list_unless_test_list_does(
    lists: Path, run_tool: RunTool, split: str, images: int
) -> None:
    name = "train" if split == "train" else "val"
    path = lists.parent / f"data/{name}.txt"
    code, out, err = run_tool("test", "--config", lists, "TEST.split", split)
    assert code == 0 and f"{images} images of {path}, " in out, err
    results = lists.parent / f"run/result/epoch_1/{split}/ss"
    assert len(list(results.glob("gray/*.png"))) == images
    if split != "test":
        assert scores(results)["protocol"]["list"] == str(path)


def test_a_test_list_that_contradicts_the_split_is_refused(lists: Path, run_tool: RunTool) -> None:
    data = lists.parent / "data"
    words = ["test", "--config", lists, "TEST.split", "train"]
    # As in the recipes, which name the validation list.
    code, _, err = run_tool(*words, "TEST.test_list", f"{data}/./val.txt")
    assert_one_sentence(code, err, "TEST.split is train", "set TEST.test_list ''")
    code, _, err = run_tool(*words, "DATA.train_list", "")
    assert_one_sentence(code, err, "TEST.test_list is empty: set it or DATA.train_list")
    (data / "own.txt").write_text((data / "val.txt").read_text())
    code, out, err = run_tool(*words, "TEST.test_list", data / "own.txt")
    assert code == 0 and f"1 images of {data}/own.txt" in out, err


@pytest.mark.parametrize("line", ["images/p3.png labels/p3.png", "./images/p3.png labels/p0.png"])
def test_an_image_is_not_scored_twice(lists: Path, run_tool: RunTool, line: str) -> None:
    path = lists.parent / "data/val.txt"
    path.write_text(f"{path.read_text()}\n\n{line}\n")
    words = ["test", "--config", lists]
    code, _, err = run_tool(*words)
    assert_one_sentence(code, err, "val.txt lines 1 and 3 name the same image", "remove one")
    assert run_tool(*words, "TEST.split", "test")[0] == 0  # without scores
