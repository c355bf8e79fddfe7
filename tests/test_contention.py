"""Threads on a busy machine: they sleep while waiting, and the log suggests what helps."""

import sys

import pytest
import torch

from tests.conftest import command
from util.distributed.device import warn_if_busy

CPU = torch.device("cpu")


@pytest.mark.parametrize("choice", ["", "ACTIVE"])
def test_threads_wait_passively_unless_configured(
    monkeypatch: pytest.MonkeyPatch, choice: str
) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    given = {"OMP_WAIT_POLICY": choice} if choice else {}
    code = "import util.error, torch"
    run = command(sys.executable, "-c", code, **given, OMP_DISPLAY_ENV="true")
    assert run.returncode == 0, run.stderr
    if "OMP_WAIT_POLICY" not in run.stderr:
        pytest.skip("this OpenMP does not tell")
    assert f"OMP_WAIT_POLICY = '{choice or 'PASSIVE'}'" in run.stderr


@pytest.mark.parametrize(("load", "threads", "is_said"), [(99.0, 2, 1), (0.1, 2, 0), (99.0, 1, 0)])
def test_busy_machine_is_reported(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    load: float,
    threads: int,
    is_said: int,
) -> None:
    monkeypatch.setattr("os.getloadavg", lambda: (load, load, load), raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    monkeypatch.setattr("torch.get_num_threads", lambda: threads)
    with caplog.at_level("WARNING", logger="semseg"):
        warn_if_busy(CPU)
    assert sum("OMP_NUM_THREADS=1" in r.message for r in caplog.records) == is_said
