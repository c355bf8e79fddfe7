"""Whole runs without what macOS and Windows lack."""

import json
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, command


@pytest.mark.slow
@pytest.mark.parametrize("system", ["macos", "windows"])
def test_training_and_testing(tiny: Path, tmp_path: Path, system: str) -> None:
    wrapper = ROOT / "tests/helpers/other_system.py"
    for tool in ("train", "test"):
        words = (ROOT / f"tool/{tool}.py", "--config", tiny, "TRAIN.workers", 1)
        run = command(sys.executable, wrapper, system, *words)
        assert run.returncode == 0 and not run.stderr, run.stderr
    (scores,) = (tmp_path / "run/result").rglob("scores.json")
    assert 0 <= json.loads(scores.read_text())["miou"] <= 1
