"""What ends a run besides its last epoch: memory, disk, mistakes, signals; each in words."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.conftest import ROOT, RunTool, assert_one_sentence, command
from util.training.checkpoint import checkpoints
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
    knobs = ("TRAIN.train_h 33", "batch_size 2", "accumulate_steps 1", "TRAIN.amp off")
    assert_one_sentence(code, err, "out of memory", *knobs, "activation_checkpointing False")
    if "2.50" in str(error):
        assert "(2.50 GiB more were asked for)" in err


def test_a_disk_that_is_full(
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
    monkeypatch.undo()
    assert run_tool("train", *words)[0] == 0  # and with room again it goes on


def test_a_changed_schedule_is_said(tiny: Path, run_tool: RunTool) -> None:
    assert run_tool("train", "--config", tiny, "epochs", 2, "save_freq", 1)[0] == 0
    (tiny.parent / "run/model/train_epoch_2.pth").unlink()
    words = ["--config", tiny, "resume", "auto", "epochs"]
    code, out, _ = run_tool("train", *words, 4)
    assert code == 0
    # 0.01 * (1 - 2/4)^0.9 and 0.01 * (1 - 2/8)^0.9
    assert "the learning rate jumps from 0.00535887 to 0.0077189" in out
    (tiny.parent / "run/model/train_epoch_4.pth").unlink()
    assert "jumps" not in run_tool("train", *words, 4)[1]


def test_parts_that_do_not_divide_the_batch(tiny: Path, run_tool: RunTool) -> None:
    code, _, err = run_tool("train", "--config", tiny, "accumulate_steps", 3)
    assert_one_sentence(code, err, "TRAIN.accumulate_steps 3", "choose a multiple of 3")
    words = ["accumulate_steps", 2, "TRAIN.loss", "ohem"]
    code, _, err = run_tool("train", "--config", tiny, *words)
    assert_one_sentence(code, err, "TRAIN.loss ohem", "accumulate_steps 2", "set it to 1")


def test_a_node_that_is_alone(
    tiny: Path, tmp_path: Path, free_port: int, run_tool: RunTool
) -> None:
    words = ["--config", tiny, "Distributed.world_size", 2, "Distributed.timeout_minutes", 0.02]
    meeting = f"127.0.0.1:{free_port}"
    done = command(sys.executable, "tool/train.py", *words, "dist_url", f"tcp://{meeting}")
    assert done.returncode == 2
    (line,) = [s for s in done.stderr.splitlines() if s.startswith("error: ")]
    assert f"2 machines should meet at {meeting} within 0.02 minutes" in line
    assert "each with its own Distributed.rank" in line and "Traceback" not in done.stderr
    code, _, err = run_tool("train", *words, "dist_url", meeting)
    assert_one_sentence(code, err, "must be tcp://<address of the first node>:<port>", meeting)
    assert not (tmp_path / "run").exists()


def endless_run(tiny: Path, processes: int) -> subprocess.Popen:
    """A training that goes on for ever, with loader workers, in a process group of its own."""
    words = ["--config", tiny, "epochs", 2000, "workers", 2, "print_freq", 1, "save_freq", 2000]
    words += ["Distributed.num_processes", processes]
    return subprocess.Popen(
        [sys.executable, "tool/train.py", *map(str, words)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
@pytest.mark.parametrize("processes", [1, 2])
def test_a_signal_to_the_whole_group(
    tiny: Path, tmp_path: Path, processes: int, number: signal.Signals
) -> None:
    """As SLURM and `timeout` send it: to the loader's workers, too, and more than once."""
    with endless_run(tiny, processes) as run:
        for line in run.stdout:
            if "Epoch: [2/" in line:
                os.killpg(run.pid, number)
                break
        for line in run.stdout:
            if "saved" in line:
                os.killpg(run.pid, number)
                break
        rest, err = run.stdout.read(), run.stderr.read()
    assert run.returncode == 75, err
    assert "TRAIN.resume auto continues" in rest and not err.strip(), err
    (saved,) = checkpoints(tmp_path / "run/model")
    assert torch.load(saved, weights_only=True)["step"] >= 2


def test_ctrl_c_ends_all_processes(tiny: Path) -> None:
    with endless_run(tiny, 2) as run:
        for line in run.stdout:
            if "Epoch: [2/" in line:
                os.killpg(run.pid, signal.SIGINT)
                break
        _, err = run.communicate(timeout=60)
    (line,) = err.strip().splitlines()
    assert run.returncode == 130 and line == "interrupted", err
