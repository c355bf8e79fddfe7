"""Stopping and resuming runs, and reproducibility."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.conftest import ROOT, RunTool, assert_one_sentence
from tests.helpers.runs import weights
from util.training.checkpoint import checkpoints


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


def test_shorter_epoch_is_reported(tiny: Path, tmp_path: Path, run_tool: RunTool) -> None:
    words = ["save_every_steps", 1, "batch_size", 2]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("util.training.checkpoint.KEEP", 99)
        assert run_tool("train", "--config", tiny, *words)[0] == 0
    middle = tmp_path / "run/model/train_epoch_0_step_1.pth"
    words = ["resume", middle, "batch_size", 4, "save_path", tmp_path / "new/model"]
    code, _, err = run_tool("train", "--config", tiny, *words)
    assert_one_sentence(code, err, "after 1 steps of an epoch, but epochs now have 1:")


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


def test_finished_and_resumed_again(tiny: Path, tmp_path: Path, run_tool: RunTool) -> None:
    assert run_tool("train", "--config", tiny)[0] == 0
    before = (tmp_path / "run/model/train_epoch_1.pth").read_bytes()
    code, out, _ = run_tool("train", "--config", tiny, "TRAIN.resume", "auto")
    assert code == 0 and "nothing to train" in out
    code, _, err = run_tool("train", "--config", tiny)
    assert_one_sentence(code, err, "already holds", "train_epoch_1.pth", "TRAIN.resume auto")
    assert (tmp_path / "run/model/train_epoch_1.pth").read_bytes() == before
