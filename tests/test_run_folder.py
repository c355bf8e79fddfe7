"""The folder of a run: one training at a time, no file of the user is changed."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, RunTool, assert_one_sentence
from util.error import ConfigError
from util.training.run_folder import FILES, RunFolder

HOLD = """
import os, sys, time
from util.training.run_folder import RunFolder
with RunFolder(sys.argv[1], active=True):
    child = os.fork()  # like a loader worker, which may briefly outlive its parent
    if child:
        print(child, flush=True)
    time.sleep(60)
"""


def test_a_folder_in_use_is_refused_until_its_process_is_dead(
    tiny: Path, tmp_path: Path, run_tool: RunTool
) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as run:
        child = int(run.stdout.readline())
        try:
            code, _, err = run_tool("train", "--config", tiny, "save_path", tmp_path)
            assert_one_sentence(code, err, f"TRAIN.save_path {tmp_path} is in use by another")
            with (
                pytest.raises(ConfigError, match=rf"in use by another .*\(process {run.pid} on "),
                RunFolder(str(tmp_path), active=True),
            ):
                pass
            with RunFolder(str(tmp_path), active=False):  # the run's other processes
                pass
            run.kill()
            run.wait()
            with RunFolder(str(tmp_path), active=True):
                pass
        finally:
            os.kill(child, signal.SIGKILL)


@pytest.mark.parametrize("name", [*FILES, "best.pth"])
def test_files_that_no_training_wrote_are_not_overwritten(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with (
        pytest.raises(ConfigError, match=f"holds {name}, which no training wrote"),
        RunFolder(str(tmp_path), active=True),
    ):
        pass
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "mine"


def test_the_files_of_a_run_are_its_own(tmp_path: Path) -> None:
    with RunFolder(str(tmp_path), active=True):
        (tmp_path / "config.yaml").write_text("ours")
    with RunFolder(
        str(tmp_path), active=True
    ):  # again, as after a crash before the first checkpoint
        pass
    older = tmp_path / "older"  # a folder of version 1.0, which had no lock
    older.mkdir()
    origin = {"command": [], "torch": "2.0", "git_commit": None}
    (older / "environment.json").write_text(json.dumps(origin))
    (older / "config.yaml").write_text("ours")
    with RunFolder(str(older), active=True):
        pass


def test_only_unfinished_files_of_a_run_are_removed(tmp_path: Path) -> None:
    mine = ["notes.tmp", "w.pth.tmp", "train_epoch_x.pth.tmp", "config.yaml.bak"]
    for name in [*mine, "train_epoch_3_step_2.pth.tmp", "best.pth.tmp"]:
        (tmp_path / name).write_text("x")
    (tmp_path / "train_epoch_1.pth.tmp").mkdir()
    with RunFolder(str(tmp_path), active=True):
        pass
    found = {path.name for path in tmp_path.iterdir()}
    assert found == {*mine, "train_epoch_1.pth.tmp", ".training.lock"}
