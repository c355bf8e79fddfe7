"""Mistakes in data, options and paths end a run with one sentence."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from tests.conftest import ROOT, RunTool, assert_one_sentence, command
from util.data.image import write_label


def break_data(root: Path, fault: str) -> None:
    """Corrupt one file of the tiny dataset."""
    if fault == "missing list":
        (root / "train.txt").unlink()
    elif fault == "missing image":
        (root / "images/p1.png").unlink()
    elif fault == "corrupt image":
        path = root / "images/p1.png"
        path.write_bytes(path.read_bytes()[:100])
    elif fault == "size":
        write_label(root / "labels/p1.png", np.zeros((48, 60), np.uint8))
    elif fault == "id":
        write_label(root / "labels/p1.png", np.full((48, 64), 7, np.uint8))
    elif fault == "colour label":
        Image.new("RGB", (64, 48), (200, 60, 60)).save(root / "labels/p1.png")


@pytest.mark.parametrize(
    ("fault", "part"),
    [
        ("missing list", "no list file"),
        ("missing image", "train.txt line 2: no image"),
        ("corrupt image", "images/p1.png cannot be decoded"),
        ("size", "labels/p1.png is 60x48"),
        ("id", "labels/p1.png holds id 7 (3072 pixels)"),
        ("colour label", "labels/p1.png is a colour image"),
    ],
)
@pytest.mark.parametrize("workers", [0, 1])
def test_bad_data_stops_training_with_a_message(
    tiny: Path, tmp_path: Path, run_tool: RunTool, fault: str, part: str, workers: int
) -> None:
    break_data(tmp_path / "data", fault)
    code, _, err = run_tool("train", "--config", tiny, "TRAIN.workers", workers)
    assert_one_sentence(code, err, part)
    assert not list(tmp_path.glob("run/model/*.pth"))


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["TRAIN.epoch", 1], "nearest: TRAIN.epochs"),
        (["TRAIN.epochs", "x"], "must be a whole number"),
        (["TRAIN.init_weight", "none.pth"], "no file"),
        (["TRAIN.weight", "none.pth"], "no weight file"),
        (["TRAIN.resume", "none.pth"], "no weight file"),
        (["TRAIN.batch_size", 5], "exceeds the 4 images"),
        (["TRAIN.batch_size", 1], "gives BatchNorm one image at a time"),
        (["TRAIN.train_h", 32], "must be 8*k+1, got 32; nearest: 25, 33"),
        (["TEST.colors_path", "none.txt"], "no file"),
        (
            ["evaluate", True, "val_protocol", "test", "TEST.test_h", 34],
            "TEST.test_h must be 8*k+1, got 34",
        ),
        (["evaluate", True, "val_protocol", "test", "TEST.scales", "[]"], "TEST.scales is empty"),
        (["TEST.colors_path", ROOT / "figure/demo/toy_street.jpg"], "is not UTF-8 text"),
    ],
)
def test_bad_options_stop_training_with_a_message(
    tiny: Path, tmp_path: Path, run_tool: RunTool, words: list, part: str
) -> None:
    code, _, err = run_tool("train", "--config", tiny, *words)
    assert_one_sentence(code, err, part)
    assert not list(tmp_path.glob("run/model/*.pth"))


def test_a_folder_that_cannot_be_written(tiny: Path, tmp_path: Path, run_tool: RunTool) -> None:
    (tmp_path / "file").write_text("in the way")
    code, _, err = run_tool("train", "--config", tiny, "save_path", tmp_path / "file/model")
    assert_one_sentence(code, err, "file/model", "Not a directory")
    assert (tmp_path / "file").read_text() == "in the way"


def test_mistakes_when_testing(tiny: Path, tmp_path: Path, run_tool: RunTool) -> None:
    code, _, err = run_tool("test", "--config", tiny)
    assert_one_sentence(code, err, "TEST.model_path is empty", "train first")
    assert run_tool("train", "--config", tiny)[0] == 0
    for words, part in (
        (["TRAIN.layers", 34], "trained with TRAIN.layers 18: set that, or choose another file"),
        (["DATA.classes", 4], "the recipe has DATA.classes 4, but"),
        (["TRAIN.deep_base", False], "plain 7x7 stem, but"),
        (["TEST.index_start", 9], "TEST.index_start 9 is past the end"),
        (
            ["TEST.names_path", ROOT / "dataset/toy_names.txt"],
            "holds 10 names, but DATA.classes is 3",
        ),
        (["TEST.has_prediction", True], "no prediction"),
        (["TEST.scales", "[]"], "TEST.scales is empty"),
        (["TEST.batch_windows", 0], "TEST.batch_windows must be at least 1, got 0"),
    ):
        code, _, err = run_tool("test", "--config", tiny, *words)
        assert_one_sentence(code, err, part)
    code, _, err = run_tool("demo", "--config", tiny, "--image", tmp_path / "data/images/p9.png")
    assert_one_sentence(code, err, "no file or folder", "nearest: ")
    (tmp_path / "empty").mkdir()
    code, _, err = run_tool("demo", "--config", tiny, "--image", tmp_path / "empty")
    assert_one_sentence(code, err, "has no images")


def test_commands_work_from_anywhere(tiny: Path, tmp_path: Path, run_tool: RunTool) -> None:
    assert run_tool("train", "--config", tiny)[0] == 0
    image = tmp_path / "in.jpg"
    cv2.imwrite(str(image), np.full((40, 50, 3), 99, np.uint8))
    python = ROOT / ".venv/bin/python"
    demo = [python if python.exists() else "python3", ROOT / "tool/demo.py"]
    done = command(*demo, "--config=tiny.yaml", "--image=in.jpg", "--output=out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out/in_overlay.png").is_file()
    done = command(*demo, f"--config={tiny}", f"--image={image}", PYTHONPATH="./")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run/demo/in_gray.png").is_file()


def test_shell_scripts_pass_on_the_exit_code(tmp_path: Path) -> None:
    done = command("sh", "tool/train.sh", "toy", "pspnet81")
    assert_one_sentence(done.returncode, done.stderr, "no config file", "nearest: ")
    assert not (ROOT / "exp/toy/pspnet81").exists()
    done = command("sh", "tool/test.sh", "toy")
    assert done.returncode == 2 and done.stderr.startswith("usage: sh tool/test.sh <dataset> <net>")
    # After a failed training the script does not test a stale model.
    fake = tmp_path / "python"
    fake.write_text('#!/bin/sh\necho "$1" >> "$LOG"\nexit 7\n')
    fake.chmod(0o755)
    log = tmp_path / "log"
    done = command(
        "sh",
        ROOT / "tool/train.sh",
        "toy",
        "pspnet18",
        cwd=tmp_path,
        PYTHON=str(fake),
        LOG=str(log),
    )
    assert done.returncode == 7 and log.read_text().split() == [str(ROOT / "tool/train.py")]
