"""If one process fails, all stop soon and the cause is reported once."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT
from util.training.checkpoint import checkpoints

pytestmark = pytest.mark.slow

MINUTE = 60.0
SPAWN = [sys.executable]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]


def train(
    tiny: Path, trouble: str, *words: object, start: list[str] = SPAWN
) -> tuple[int, str, str]:
    """Train on two processes, one step per epoch; return (exit code, stdout, stderr)."""
    if start is SPAWN:
        words = (*words, "Distributed.num_processes", 2)
    words = ("batch_size", 4, "epochs", 4, *words)
    started = time.monotonic()
    done = subprocess.run(
        [*start, "tests/helpers/troubled.py", "--config", str(tiny), *map(str, words)],
        cwd=ROOT,
        env={**os.environ, "TROUBLE": trouble, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert "saved" in done.stdout, done.stderr  # it had started
    assert time.monotonic() - started < 3 * MINUTE  # includes starting Python
    return done.returncode, done.stdout, done.stderr


def reasons(err: str) -> list[str]:
    return [line for line in err.splitlines() if line.startswith("error: ")]


HOST = socket.gethostname()
EXPECTED = {
    "bug": (1, f"error: rank 1 on {HOST}: Traceback"),
    "data": (2, f"error: rank 1 on {HOST}: image p7.png has no label: write one"),
    "killed": (1, f"error: rank 1 on {HOST} was killed by SIGKILL"),
    "frozen": (1, f"error: rank 1 on {HOST} hangs: it did not answer for 0.1 minutes"),
    "hanging": (1, f"error: rank 1 on {HOST} hangs: it did not answer for 0.1 minutes"),
    "worker": (2, f"error: rank 1 on {HOST}: DataLoader worker (pid"),
    "nan": (2, "the loss of step 3 in process 1 is not finite (images p"),
}


@pytest.mark.parametrize("trouble", EXPECTED)
def test_all_processes_end_and_the_cause_is_reported_once(
    tiny: Path, tmp_path: Path, trouble: str
) -> None:
    short = ("timeout_minutes", 0.1)
    words = {"worker": ("workers", 2), "hanging": short, "frozen": short}.get(trouble, ())
    code, _, err = train(tiny, trouble, *words)
    wanted, reason = EXPECTED[trouble]
    assert code == wanted, err
    (line,) = reasons(err)
    assert reason in line, err
    assert err.count("Traceback") == (trouble == "bug"), err
    assert checkpoints(tmp_path / "run/model")[0].name == "train_epoch_2.pth"


def test_the_cause_is_named_on_the_right_machine(
    tiny: Path, tmp_path: Path, free_port: int
) -> None:
    words = ["Distributed.world_size", 2, "dist_url", f"tcp://127.0.0.1:{free_port}", "epochs", 4]
    words += ["batch_size", 4, "Distributed.rank"]
    command = [*SPAWN, "tests/helpers/troubled.py", "--config", str(tiny), *map(str, words)]
    machines = [
        subprocess.Popen(
            [*command, str(rank)],
            cwd=ROOT,
            env={**os.environ, "TROUBLE": "killed", "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    first, second = (machine.communicate(timeout=200)[1] for machine in machines)
    assert [machine.returncode for machine in machines] == [1, 1]
    (line,) = reasons(second)
    assert line.startswith(f"error: rank 1 on {HOST} was killed by SIGKILL")
    (line,) = reasons(first)
    assert line.startswith(f"error: rank 0 on {HOST}: lost another process"), first
    assert line.endswith("see the output of the other machines")
    assert "Traceback" not in first + second


def test_single_machine_of_two_times_out(tiny: Path, free_port: int) -> None:
    """Both for the first machine, which opens the address, and for the other."""
    meeting = f"127.0.0.1:{free_port}"
    words = ["Distributed.world_size", 2, "Distributed.timeout_minutes", 0.03]
    for rank in range(2):
        words += ["dist_url", f"tcp://{meeting}", "Distributed.rank", rank]
        done = subprocess.run(
            [*SPAWN, "tool/train.py", "--config", str(tiny), *map(str, words)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 2, done.stderr
        (line,) = reasons(done.stderr)
        assert f"2 machines should meet at {meeting} within 0.03 minutes" in line
        assert "each with its own Distributed.rank" in line and "Traceback" not in done.stderr


def test_nonfinite_steps_can_be_skipped(tiny: Path, tmp_path: Path) -> None:
    code, out, err = train(tiny, "nan", "TRAIN.nonfinite", "skip", "batch_size", 2)
    assert code == 0, err
    assert out.count("step skipped, 1 so far") == 1
    records = [json.loads(s) for s in (tmp_path / "run/model/metrics.jsonl").open()]
    assert [r["skipped_steps"] for r in records] == [0, 1, 0, 0]


def test_under_torchrun_a_mistake_is_reported_once(tiny: Path) -> None:
    code, _, err = train(tiny, "data", start=TORCHRUN)
    assert code == 1  # torchrun's own exit code
    (line,) = reasons(err)
    assert "rank 1" in line and "image p7.png has no label" in line


def test_torchrun_restarts_and_the_run_resumes(tiny: Path, tmp_path: Path) -> None:
    start = [*TORCHRUN, "--max-restarts=1"]
    code, out, err = train(tiny, "killed", "TRAIN.resume", "auto", start=start)
    assert code == 0, err
    assert "continuing from" in out
    assert checkpoints(tmp_path / "run/model")[0].name == "train_epoch_4.pth"


def test_a_compiled_network_trains_as_an_uncompiled_one_on_two_processes() -> None:
    done = subprocess.run(
        [*TORCHRUN, "tests/helpers/compiled.py", "eager"],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
