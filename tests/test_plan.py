"""tool/plan.py: its output, and its estimates against measurements."""

import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.conftest import RunTool, assert_one_sentence, command
from util.config import load_config
from util.error import RunError
from util.extra import plan


def test_the_line_and_the_schedule(tiny: Path) -> None:
    cfg = load_config(tiny, ["batch_size", "12", "epochs", "10", "workers", "2"])
    line = plan.Line(plan.Cost(2, 1.0, 3.0), plan.Cost(4, 1.8, 5.0))
    assert line.at(8) == plan.Cost(8, pytest.approx(3.4), pytest.approx(9.0))
    slow = plan.Line(plan.Cost(2, 1.0, 3.0), plan.Cost(4, 0.8, 5.0))  # on a busy machine
    assert [slow.at(size).seconds for size in (1, 2, 8)] == pytest.approx([1.1, 1.0, 1.0])
    assert plan.batch_sizes(cfg) == [2, 4, 8, 12, 16]
    assert plan.batch_sizes(replace(cfg, freeze_bn=True))[0] == 1
    found = plan.schedule(cfg, plan.Cost(12, 0.5, 1.0), 0.1, 120)
    assert found["steps_per_epoch"] == 10 and found["workers_needed"] == 3
    assert found["seconds_per_step"] >= 0.6  # the loader is slower than the step
    assert found["hours"] == pytest.approx(10 * 10 * found["seconds_per_step"] / 3600)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_checkpoint_has_the_estimated_size(tiny: Path, run_tool: RunTool, optimizer: str) -> None:
    words = ["optimizer", optimizer]
    assert run_tool("train", "--config", tiny, *words)[0] == 0
    cfg = load_config(tiny, words)
    real = next(Path(cfg.save_path).glob("train_epoch_1.pth")).stat().st_size
    assert plan.checkpoint_bytes(cfg) == pytest.approx(real, rel=0.02)


@pytest.mark.slow
def test_estimates_agree_with_a_run(tiny: Path) -> None:
    """Memory within a fifth; time only roughly, as other programs may use the machine."""
    images = tiny.parent / "data/train.txt"
    images.write_text(images.read_text() * 3)
    words = ["train_h", "97", "train_w", "97", "batch_size", "12", "epochs", "2"]
    run = command(sys.executable, "tool/train.py", "--config", tiny, *words)
    assert run.returncode == 0, run.stderr
    cfg = load_config(tiny, words)
    lines = (Path(cfg.save_path) / "metrics.jsonl").read_text().splitlines()
    last = json.loads(lines[-1])
    said = plan.step_line(cfg, torch.device("cpu"), usable_gib=0).at(12)  # from 2 and 4
    assert said.gib == pytest.approx(last["memory_gib"], rel=0.2)
    assert 1 / 3 < said.seconds * last["images_per_second"] / 12 < 3


@pytest.mark.slow
def test_tool_prints_all_estimates(tiny: Path, run_tool: RunTool) -> None:
    code, out, err = run_tool("plan", "--config", tiny, "amp", "bf16", "channels_last", "True")
    assert code == 0, err
    for pattern in (
        r"4 training images; batch size 2",
        r"\n +2 +\d+\.\d\d +\d+\.\d{3} +\d+\.\d\d  <- this recipe\n",
        r"time: 2 steps/epoch of .* h for 1 epochs",
        r"loader: .* workers keep the device busy, TRAIN.workers is 0",
        r"test: .* min for 4\n",
        r"measured: batch sizes 2 and 3; the others are estimated",
        r"disk: \d+ MiB/checkpoint, \d+ MiB for the 2 kept",
        r"TRAIN: activation_checkpointing True: .*GiB",
    ):
        assert re.search(pattern, out), f"{pattern} not in {out}"


@pytest.mark.slow
def test_a_damaged_image_is_named_in_a_sentence(tiny: Path) -> None:
    image = tiny.parent / "data/images/p3.png"
    image.write_bytes(image.read_bytes()[:900])
    run = command(sys.executable, "tool/plan.py", "--config", tiny)
    assert_one_sentence(run.returncode, run.stderr, str(image), "damaged")


def test_no_list_to_test_is_a_sentence(tiny: Path, run_tool: RunTool) -> None:
    code, _, err = run_tool("plan", "--config", tiny, "test_list", "", "val_list", "")
    assert_one_sentence(code, err, "TEST.test_list is empty: set it")


def test_a_step_that_does_not_run_is_a_sentence(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "apart", lambda *args, **keys: None)
    with pytest.raises(RunError, match="batch size 2 does not run on this machine"):
        plan.step_line(load_config(tiny), torch.device("cpu"), usable_gib=1.0)
