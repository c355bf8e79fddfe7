"""A run that is killed at random moments and resumed gives the same weights."""

import re
import sys
from pathlib import Path

import pytest
import torch

from tests.conftest import command

pytestmark = pytest.mark.slow


def test_thirty_kills_leave_no_trace_in_the_weights(tiny: Path, tmp_path: Path) -> None:
    """kill -9 at random moments, with a save after every step, so that some fall into one."""
    done = command(sys.executable, "tests/helpers/kills.py", tiny, tmp_path, limit=900)
    log = (tmp_path / "killed.log").read_text()
    assert done.returncode == 0, done.stderr + log[-3000:]
    kills, during_save = map(int, re.findall(r"\d+", done.stdout.splitlines()[-1]))
    assert kills == 30 and during_save > 0
    assert log.count("continuing from") >= 25  # early kills may precede the first save
    one, other = (
        torch.load(tmp_path / name / "model/train_epoch_90.pth", weights_only=True)
        for name in ("whole", "killed")
    )
    for part in ("state_dict", "step", "best_miou", "lr"):
        torch.testing.assert_close(one[part], other[part], rtol=0, atol=0)
    momenta = (
        [s["momentum_buffer"] for s in c["optimizer"]["state"].values()] for c in (one, other)
    )
    assert all(torch.equal(a, b) for a, b in zip(*momenta, strict=True))
    assert not list((tmp_path / "killed/model").glob("*.tmp"))
