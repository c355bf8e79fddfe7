"""Signals and killed launchers: training saves, exits with 75 and leaves no process behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from tests.conftest import ROOT
from util.training.checkpoint import checkpoints

pytestmark = pytest.mark.slow

TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]


@contextmanager
def endless_run(tiny: Path, processes: int, *start: str) -> Iterator[subprocess.Popen]:
    """Start an endless training with loader workers in its own process group."""
    words = ["--config", tiny, "epochs", 2000, "workers", 2, "print_freq", 1, "save_freq", 2000]
    words += [] if start else ["Distributed.num_processes", processes]
    with subprocess.Popen(
        [sys.executable, *start, "tool/train.py", *map(str, words)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as run:
        yield run
    limit = time.monotonic() + 30
    while left := processes_of(tiny):
        assert time.monotonic() < limit, f"left behind: {left}"
        time.sleep(0.2)


def processes_of(tiny: Path, *, parent: int | None = None) -> list[int]:
    """The processes whose command line names the config (children of `parent`)."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
            its_parent = int((folder / "stat").read_text().rsplit(")")[1].split()[1])
        except OSError:  # it has exited meanwhile
            continue
        if str(tiny).encode() in words and parent in (None, its_parent):
            found.append(int(folder.name))
    return sorted(found)


def wait_for(run: subprocess.Popen, text: str) -> None:
    for line in run.stdout:
        if text in line:
            return
    raise AssertionError(run.stderr.read())


def assert_saved(run: subprocess.Popen, folder: Path) -> None:
    """Assert exit code 75, empty stderr and one checkpoint to resume from."""
    rest, err = run.stdout.read(), run.stderr.read()
    assert run.wait(60) == 75, err
    assert "TRAIN.resume auto continues" in rest and not err.strip(), err
    (saved,) = checkpoints(folder / "run/model")
    assert torch.load(saved, weights_only=True)["step"] >= 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
@pytest.mark.parametrize("processes", [1, 2])
def test_a_signal_to_the_whole_group(
    tiny: Path, tmp_path: Path, processes: int, number: signal.Signals
) -> None:
    """As sent by SLURM and `timeout`: also to loader workers, and repeatedly."""
    with endless_run(tiny, processes) as run:
        wait_for(run, "Epoch: [2/")
        os.killpg(run.pid, number)
        time.sleep(0.5)
        os.killpg(run.pid, number)
        assert_saved(run, tmp_path)


def test_a_signal_to_the_main_process(tiny: Path, tmp_path: Path) -> None:
    with endless_run(tiny, 2) as run:
        wait_for(run, "Epoch: [2/")
        run.send_signal(signal.SIGHUP)
        assert_saved(run, tmp_path)


def test_a_signal_to_one_of_the_processes(tiny: Path, tmp_path: Path) -> None:
    with endless_run(tiny, 2) as run:
        wait_for(run, "Epoch: [2/")
        _, second = processes_of(tiny, parent=run.pid)
        os.kill(second, signal.SIGUSR1)
        assert_saved(run, tmp_path)


@pytest.mark.parametrize("processes", [1, 2])
def test_a_signal_before_the_first_step(tiny: Path, tmp_path: Path, processes: int) -> None:
    """There is nothing to save yet."""
    with endless_run(tiny, processes) as run:
        while processes == 2 and len(processes_of(tiny, parent=run.pid)) < 2:
            time.sleep(0.05)
        if processes == 1:
            time.sleep(1)  # while it imports
        run.terminate()
        _, err = run.communicate(timeout=60)
    assert run.returncode == 75 and "Traceback" not in err and "error" not in err, err
    assert not checkpoints(tmp_path / "run/model")


def test_ctrl_c_ends_all_processes(tiny: Path) -> None:
    with endless_run(tiny, 2) as run:
        wait_for(run, "Epoch: [2/")
        os.killpg(run.pid, signal.SIGINT)
        _, err = run.communicate(timeout=60)
    assert run.returncode == 130 and err.strip() == "interrupted", err


@pytest.mark.parametrize("start", [[], TORCHRUN], ids=["own agent", "torchrun"])
def test_no_process_outlives_an_agent_that_was_killed(tiny: Path, start: list[str]) -> None:
    with endless_run(tiny, 2, *start) as run:
        wait_for(run, "Epoch: [2/")
        run.kill()
        _, err = run.communicate(timeout=60)
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert f"process {run.pid} on" in line, err
