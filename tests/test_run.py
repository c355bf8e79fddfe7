"""The verbs end to end: train, test, demo; resuming; what a run folder holds; mistakes."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from model import build_model
from tests.conftest import ROOT, RunTool, assert_one_sentence, command
from tests.helpers.runs import records, weights
from util.config import load_config
from util.data.image import read_image, read_label, write_label
from util.training.checkpoint import checkpoints


def test_train_test_demo(tiny: Path, tmp_path: Path, run_tool: RunTool) -> None:
    run = tmp_path / "run"
    code, out, err = run_tool("train", "--config", tiny, "evaluate", "True")
    assert code == 0, err
    assert "Epoch: [1/1][1/2] Data " in out and "Remain 00:00:0" in out and "MainLoss" in out
    assert "Speed at epoch [1/1]: " in out and " of the time waiting for data, " in out
    assert "Val result at epoch [1/1]: mIoU/mAcc/aAcc" in out
    names = {p.name.split("-")[0].split(".out")[0] for p in (run / "model").iterdir()}
    assert {"train_epoch_1.pth", "best.pth", "config.yaml", "environment.json"} <= names
    assert {"metrics.jsonl", "events", "train"} <= names
    content = torch.load(run / "model/train_epoch_1.pth", weights_only=True)
    assert {"epoch", "state_dict", "optimizer", "config"} <= set(content)

    events = EventAccumulator(str(run / "model")).Reload()
    scalars = {"loss/total", "loss/main", "loss/aux", "lr", "speed/images_per_second", "val/miou"}
    scalars |= {f"speed/{name}" for name in ("data_wait", "memory_gib", "tflops")}
    assert scalars <= set(events.Tags()["scalars"])
    assert events.Tags()["images"] == [f"{s}/image_label_prediction" for s in ("train", "val")]
    record = json.loads((run / "model/metrics.jsonl").read_text())
    assert record["epoch"] == 1 and 0 <= record["val"]["miou"] <= 1

    code, out, err = run_tool("test", "--config", run / "model/config.yaml", "scales", "[0.5, 1.0]")
    assert code == 0, err
    result = run / "result/epoch_1/val/ms"
    scores = json.loads((result / "scores.json").read_text())
    for folder in ("gray", "color", "overlay"):
        found = sorted(p.name for p in (result / folder).iterdir())
        assert found == ["p0.png", "p1.png", "p2.png", "p3.png"]
    assert f"Eval result: mIoU/mAcc/aAcc {scores['miou']:.4f}/" in out
    assert scores["protocol"]["scales"] == [0.5, 1.0]
    assert read_label(result / "gray/p0.png").shape == (48, 64)

    # The scores are those of the images that were written.
    code, _, _ = run_tool("test", "--config", tiny, "scales", "[.5, 1]", "has_prediction", "True")
    assert code == 0
    again = json.loads((result / "scores.json").read_text())
    assert again["miou"] == scores["miou"] and again["iou_class"] == scores["iou_class"]

    # The demo, at the same scales, gives the same label map as the test.
    image = tmp_path / "data/images/p2.png"
    code, out, err = run_tool(
        "demo", f"--config={tiny}", f"--image={image}", "TEST.scales", "[0.5, 1.0]"
    )
    assert code == 0, err
    gray = read_label(run / "demo/p2_gray.png")
    np.testing.assert_array_equal(gray, read_label(result / "gray/p2.png"))
    assert read_image(run / "demo/p2_color.png").shape == (48, 64, 3)
    assert read_image(run / "demo/p2_overlay.png").shape[0] > 48  # with a legend below
    code, out, _ = run_tool(
        "demo", "--config", tiny, "--image", image.parent, "--output", tmp_path / "o"
    )
    assert code == 0 and len(list((tmp_path / "o").glob("*_gray.png"))) == 4


def test_the_way_of_testing_reaches_the_predictor(
    tiny: Path, tmp_path: Path, run_tool: RunTool, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "w.pth"
    torch.save({"state_dict": build_model(load_config(tiny)).state_dict()}, path)
    monkeypatch.setattr("util.inference.network.COMPILE_BACKEND", "eager")
    monkeypatch.setenv("CXX", sys.executable)

    def test(name: str, *words: object) -> list[np.ndarray]:
        folder = tmp_path / name
        words = ("model_path", path, "save_folder", folder, *words)
        code, _, err = run_tool("test", "--config", tiny, *words)
        assert code == 0, err
        protocol = json.loads((folder / "scores.json").read_text())["protocol"]
        assert protocol["mode"] == ("whole" if "whole" in words else "slide")
        return [read_label(folder / f"gray/p{i}.png") for i in range(4)]

    slide, whole = test("slide"), test("whole", "test_mode", "whole")
    assert any((a != b).any() for a, b in zip(slide, whole, strict=True))
    for name, words in (("one", ["batch_windows", 1]), ("compiled", ["test_compile", True])):
        for a, b in zip(slide, test(name, *words), strict=True):
            assert (a == b).mean() > 0.999
    image = tmp_path / "data/images/p2.png"
    words = ["model_path", path, "test_mode", "whole"]
    code, _, err = run_tool("demo", f"--config={tiny}", f"--image={image}", *words)
    assert code == 0, err
    np.testing.assert_array_equal(read_label(tmp_path / "run/demo/p2_gray.png"), whole[2])


def test_overfits_two_images(tiny: Path, tmp_path: Path, run_tool: RunTool) -> None:
    lines = (tmp_path / "data/train.txt").read_text().splitlines()[:2]
    (tmp_path / "data/two.txt").write_text("\n".join(lines))
    data = tmp_path / "data/two.txt"
    words = ["train_list", data, "val_list", data, "epochs", 40, "save_freq", 40, "print_freq", 9]
    geometry = ["train_h", 49, "train_w", 65, "scale_min", 1, "rotate_min", 0, "rotate_max", 0]
    code, _, err = run_tool("train", "--config", tiny, *words, *geometry, "scale_max", 1)
    assert code == 0, err
    code, _, err = run_tool("test", "--config", tiny, "val_list", data, "test_h", 49, "test_w", 65)
    assert code == 0, err
    scores = json.loads((tmp_path / "run/result/epoch_40/val/ss/scores.json").read_text())
    assert scores["miou"] > 0.8, scores
    losses = [record["train_loss"] for record in records(tmp_path / "run")]
    assert losses[-1] < losses[0] / 4


def test_a_resumed_run_equals_an_undisturbed_one(
    tiny: Path, tmp_path: Path, run_tool: RunTool
) -> None:
    """Saved at every step; each of the files, as if all later ones had been lost, leads to the
    same weights to the last bit."""

    def train(name: str, *words: object) -> Path:
        folder = tmp_path / name / "model"
        words = ("epochs", 2, "save_every_steps", 1, "batch_size", 2, *words)
        code, _, err = run_tool("train", "--config", tiny, "save_path", folder, *words)
        assert code == 0, err
        return folder

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("util.training.checkpoint.KEEP", 99)
        whole = train("whole")
    files = checkpoints(whole)
    names = [p.stem.removeprefix("train_epoch_") for p in files]
    assert names == ["2", "1_step_1", "1", "0_step_1"]
    wanted = weights(files[0])
    for early in files[1:]:
        part = tmp_path / f"part{early.stem}/model"
        part.mkdir(parents=True)
        (part / early.name).write_bytes(early.read_bytes())
        train(f"part{early.stem}", "resume", "auto")
        found = weights(part / "train_epoch_2.pth")
        assert all(torch.equal(found[name], wanted[name]) for name in wanted), early


def test_saving_by_the_clock(tiny: Path, tmp_path: Path, run_tool: RunTool) -> None:
    assert run_tool("train", "--config", tiny, "save_every_minutes", 1e-9)[0] == 0
    names = [p.name for p in checkpoints(tmp_path / "run/model")]
    assert names == ["train_epoch_1.pth", "train_epoch_0_step_1.pth"]


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1"])
def test_a_signal_ends_the_run_after_saving(tiny: Path, tmp_path: Path, name: str) -> None:
    words = ["--config", tiny, "epochs", 2000, "workers", 1, "print_freq", 1, "save_freq", 2000]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command_line = [sys.executable, "tool/train.py", *map(str, words)]
    with subprocess.Popen(
        command_line, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
    ) as run:
        for line in run.stdout:
            if "Epoch: [2/" in line:
                run.send_signal(getattr(signal, name))
                break
        rest = run.stdout.read()
    assert run.returncode == 75
    assert f"stopped by {name}" in rest and "TRAIN.resume auto continues" in rest
    (saved,) = checkpoints(tmp_path / "run/model")
    content = torch.load(saved, weights_only=True)
    assert content["step"] == 2 * content["epoch"] + content["step_in_epoch"] >= 2


def test_an_epoch_that_has_shrunk_is_said(tiny: Path, tmp_path: Path, run_tool: RunTool) -> None:
    words = ["save_every_steps", 1, "batch_size", 2]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("util.training.checkpoint.KEEP", 99)
        assert run_tool("train", "--config", tiny, *words)[0] == 0
    middle = tmp_path / "run/model/train_epoch_0_step_1.pth"
    words = ["resume", middle, "batch_size", 4, "save_path", tmp_path / "new/model"]
    code, _, err = run_tool("train", "--config", tiny, *words)
    assert_one_sentence(code, err, "after 1 steps of an epoch, which has 1 now")


def test_the_same_seed_gives_the_same_run(tiny: Path, tmp_path: Path, run_tool: RunTool) -> None:
    for name, workers in (("a", 0), ("b", 1)):
        words = ["save_path", tmp_path / name / "model", "TRAIN.workers", workers]
        assert run_tool("train", "--config", tiny, *words)[0] == 0
    one, two = (weights(tmp_path / n / "model/train_epoch_1.pth") for n in "ab")
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_fresh_seed_is_kept_for_resuming(tiny: Path, tmp_path: Path, run_tool: RunTool) -> None:
    words = ["TRAIN.manual_seed", "", "resume", "auto"]
    assert run_tool("train", "--config", tiny, *words)[0] == 0
    first = torch.load(tmp_path / "run/model/train_epoch_1.pth", weights_only=True)["seed"]
    code, out, _ = run_tool("train", "--config", tiny, *words, "epochs", 2)
    assert code == 0 and f"seed {first}" in out
    assert f"manual_seed: {first}" in (tmp_path / "run/model/config.yaml").read_text()


def test_two_processes_train_together(tiny: Path, tmp_path: Path) -> None:
    only = tmp_path / "data/only.txt"  # fewer images than processes
    only.write_text("images/p0.png labels/p0.png\n")
    words = ["--config", tiny, "TRAIN.sync_bn", "False", "batch_size", 4, "evaluate", "True"]
    words += ["val_list", only]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = command(*torchrun, "tool/train.py", *words, OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    assert "processes: 2" in done.stdout and "Val result at epoch [1/1]" in done.stdout
    assert (tmp_path / "run/model/train_epoch_1.pth").is_file()


def test_finished_and_resumed_again(tiny: Path, tmp_path: Path, run_tool: RunTool) -> None:
    assert run_tool("train", "--config", tiny)[0] == 0
    before = (tmp_path / "run/model/train_epoch_1.pth").read_bytes()
    code, out, _ = run_tool("train", "--config", tiny, "TRAIN.resume", "auto")
    assert code == 0 and "nothing to train" in out
    code, _, err = run_tool("train", "--config", tiny)
    assert_one_sentence(code, err, "already holds", "train_epoch_1.pth", "TRAIN.resume auto")
    assert (tmp_path / "run/model/train_epoch_1.pth").read_bytes() == before


@pytest.mark.parametrize("zoom", [1, 4])
def test_low_zoom_trains_and_tests(
    tiny: Path, tmp_path: Path, run_tool: RunTool, zoom: int
) -> None:
    words = ["zoom_factor", zoom, "evaluate", "True"]
    assert run_tool("train", "--config", tiny, *words)[0] == 0
    assert run_tool("test", "--config", tiny, *words)[0] == 0


def test_psanet_and_low_precision(tiny: Path, tmp_path: Path, run_tool: RunTool) -> None:
    words = ["arch", "psa", "amp", "bf16", "channels_last", "True", "test_amp", "bf16"]
    words += ["test_h", 33, "test_w", 33]
    assert run_tool("train", "--config", tiny, *words)[0] == 0
    assert run_tool("test", "--config", tiny, *words)[0] == 0


def test_split_test_needs_no_labels(tiny: Path, tmp_path: Path, run_tool: RunTool) -> None:
    assert run_tool("train", "--config", tiny)[0] == 0
    (tmp_path / "data/test.txt").write_text("images/p0.png\nimages/p1.png\n")
    words = ["test_list", tmp_path / "data/test.txt", "split", "test", "index_start", 1]
    code, out, err = run_tool("test", "--config", tiny, *words)
    assert code == 0, err
    result = tmp_path / "run/result/epoch_1/test/ss"
    assert [p.name for p in (result / "gray").iterdir()] == ["p1.png"]
    assert not (result / "scores.json").exists() and "mIoU" not in out


def break_data(root: Path, fault: str) -> None:
    """Make one file of the tiny dataset bad."""
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
def test_bad_data_stops_training_in_words(
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
        (["TRAIN.batch_size", 5], "more than the 4 images"),
        (["TRAIN.batch_size", 1], "gives BatchNorm one image at a time"),
        (["TRAIN.train_h", 32], "must be 8*k+1, got 32; nearest: 25, 33"),
        (["TEST.colors_path", "none.txt"], "no file"),
        (["TEST.colors_path", ROOT / "figure/demo/toy_street.jpg"], "is not UTF-8 text"),
    ],
)
def test_bad_options_stop_training_in_words(
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
        (["TRAIN.layers", 34], "does not fit this network"),
        (["DATA.classes", 4], "cls.4.weight (3, 512, 1, 1) in the file, (4, 512, 1, 1)"),
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
    assert_one_sentence(code, err, "holds no image")


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
    # A failed training is not followed by a test of a stale model.
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
