"""Train, test and demo end to end."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from model import build_model
from tests.conftest import RunTool, command
from tests.helpers.runs import records
from util.config import load_config
from util.data.image import read_image, read_label


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

    # The scores match the images written.
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
    assert read_image(run / "demo/p2_overlay.png").shape[0] > 48  # includes a legend
    code, out, _ = run_tool(
        "demo", "--config", tiny, "--image", image.parent, "--output", tmp_path / "o"
    )
    assert code == 0 and len(list((tmp_path / "o").glob("*_gray.png"))) == 4


@pytest.mark.slow
def test_test_options_reach_the_predictor(
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


@pytest.mark.slow
def test_scores_are_those_of_the_saved_statistics(
    tiny: Path, tmp_path: Path, run_tool: RunTool
) -> None:
    """Without sync_bn each process has its own BatchNorm statistics; the first one's are saved."""
    words = ["--config", tiny, "sync_bn", "False", "batch_size", 4, "evaluate", "True"]
    words += ["val_protocol", "test", "val_list", tmp_path / "data/train.txt"]
    more = ["Distributed.num_processes", 2]
    done = command(sys.executable, "tool/train.py", *words, *more, OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    (record,) = records(tmp_path / "run")
    code, _, err = run_tool("test", *words)
    assert code == 0, err
    scores = json.loads(next((tmp_path / "run").rglob("scores.json")).read_text())
    assert [scores[name] for name in record["val"]] == list(record["val"].values())


@pytest.mark.slow
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
