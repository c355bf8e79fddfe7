"""Failures that end a run (memory, disk, mistakes) give a clear message."""

import errno
import os
from pathlib import Path

import pytest
import torch

from tests.conftest import RunTool, assert_one_sentence
from util.training.step import StepResult


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"
        ),
        MemoryError("Unable to allocate 3.00 TiB for an array"),
    ],
)
def test_out_of_memory_names_what_helps(
    tiny: Path, run_tool: RunTool, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def step(*args: object, **more: object) -> StepResult:
        raise error

    monkeypatch.setattr("util.training.trainer.train_step", step)
    code, _, err = run_tool("train", "--config", tiny)
    size = ("TRAIN.train_h 33", "batch_size 2")
    keys = "raise TRAIN.accumulate_steps 1, or set TRAIN.activation_checkpointing True"
    assert_one_sentence(code, err, "out of memory", *size, f"{keys}, or set TRAIN.amp bf16.")
    words = ["amp", "bf16", "activation_checkpointing", True, "save_path", tiny.parent / "other"]
    code, _, err = run_tool("train", "--config", tiny, *words)
    assert_one_sentence(code, err, "out of memory", *size, "raise TRAIN.accumulate_steps 1. ")
    if "2.50" in str(error):
        assert "(2.50 GiB more requested)" in err


def test_full_disk(
    tiny: Path, tmp_path: Path, run_tool: RunTool, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run_tool("train", "--config", tiny)[0] == 0
    good = tmp_path / "run/model/train_epoch_1.pth"
    before = good.read_bytes()

    def full(number: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.fsync", full)
    words = ["--config", tiny, "epochs", 2, "resume", "auto"]
    code, _, err = run_tool("train", *words)
    assert_one_sentence(code, err, "train_epoch_2.pth cannot be written: No space left on device")
    assert good.read_bytes() == before and not list(good.parent.glob("*.tmp"))
    for number, fix in ((errno.EROFS, "choose a folder that can be"), (errno.EFBIG, "ulimit -f")):

        def refused(file: int, number: int = number) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr("os.fsync", refused)
        code, _, err = run_tool("train", *words)
        assert_one_sentence(code, err, "train_epoch_2.pth cannot be written", fix)
    monkeypatch.undo()
    assert run_tool("train", *words)[0] == 0  # with free space it resumes


def test_changed_schedule_is_logged(tiny: Path, run_tool: RunTool) -> None:
    assert run_tool("train", "--config", tiny, "epochs", 2, "save_freq", 1)[0] == 0
    (tiny.parent / "run/model/train_epoch_2.pth").unlink()
    words = ["--config", tiny, "resume", "auto", "epochs"]
    code, out, _ = run_tool("train", *words, 4)
    assert code == 0
    # 0.01 * (1 - 2/4)^0.9 and 0.01 * (1 - 2/8)^0.9
    assert "the learning rate jumps from 0.00535887 to 0.0077189" in out
    (tiny.parent / "run/model/train_epoch_4.pth").unlink()
    assert "jumps" not in run_tool("train", *words, 4)[1]


def test_batch_not_divisible_by_micro_batches(tiny: Path, run_tool: RunTool) -> None:
    code, _, err = run_tool("train", "--config", tiny, "accumulate_steps", 3)
    assert_one_sentence(code, err, "TRAIN.accumulate_steps 3", "choose a multiple of 3")
    words = ["accumulate_steps", 2, "TRAIN.loss", "ohem"]
    code, _, err = run_tool("train", "--config", tiny, *words)
    assert_one_sentence(code, err, "TRAIN.loss ohem", "accumulate_steps 2", "set it to 1")
