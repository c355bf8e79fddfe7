"""Tests that are stopped, killed or run out of disk space."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.conftest import ROOT, RunTool, command
from tests.helpers.tested import IMAGES, assert_same_results, with_cities, words


@pytest.fixture
def ready(tiny: Path) -> Path:
    return with_cities(tiny)


def start(*arguments: object) -> subprocess.Popen:
    # The same number of threads as here: otherwise sums in the network may be rounded differently.
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    return subprocess.Popen(
        [sys.executable, "tool/test.py", *map(str, arguments)],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(path: Path, pattern: str, count: int) -> None:
    """Wait for this number of files."""
    end = time.monotonic() + 60
    while len(list(path.rglob(pattern))) < count:
        assert time.monotonic() < end, f"no {count} {pattern} in {path}"
        time.sleep(0.002)


def test_killed_and_started_again(ready: Path, tmp_path: Path, run_tool: RunTool) -> None:
    """kill -9 after some predictions, one of which is then truncated."""
    part, whole = tmp_path / "part", tmp_path / "whole"
    with start(*words(ready, part)) as run:
        wait_for(part / "gray", "*.png", 4)
        run.kill()
    left = sorted((part / "gray").rglob("[!.]*.png"))
    assert 4 <= len(left) < IMAGES and not (part / "scores.json").exists()
    left[0].write_bytes(left[0].read_bytes()[:60])
    for path in part.rglob(".*.part"):  # the kill may leave a hidden temporary file
        path.unlink()
    code, out, err = run_tool("test", *words(ready, part, "TEST.skip_existing", "True"))
    assert code == 0, err
    found = len(left) - 1
    assert f"{found} predictions reused, {IMAGES - found} new" in out
    assert run_tool("test", *words(ready, whole))[0] == 0
    assert_same_results(part, whole)


@pytest.mark.slow
def test_a_disk_without_space_ends_the_test_with_a_sentence(ready: Path, tmp_path: Path) -> None:
    """At each write, simulated by a limit on the file size."""
    whole = tmp_path / "whole"
    script = 'ulimit -f "$1"; shift; exec "$@"'
    reached = set()
    for blocks in (0, 1, 2, 6, 20):  # of 512 or 1024 bytes
        tool = (sys.executable, "tool/test.py", *words(ready, whole, "TEST.index_step", 1))
        done = command("sh", "-c", script, "sh", blocks, *tool)
        assert done.returncode in (0, 2), done.stderr
        if done.returncode:
            assert "Traceback" not in done.stderr, done.stderr
            assert "File too large" in done.stderr
            reached.add(done.stderr.split(": ")[1].rpartition("/")[2])
        assert not list(whole.rglob("*.part"))
    assert len(reached) > 1


def test_interrupted(ready: Path, tmp_path: Path) -> None:
    with start(*words(ready, tmp_path / "out")) as run:
        wait_for(tmp_path / "out/gray", "*.png", 1)
        begin = time.monotonic()
        run.send_signal(signal.SIGINT)
        _, err = run.communicate(timeout=60)
        assert time.monotonic() - begin < 10
    assert run.returncode == 130 and err.strip().splitlines()[-1] == "interrupted", err
    assert "Traceback" not in err and not list(tmp_path.rglob("*.part"))


def test_signal_stops_the_test_and_it_resumes(
    ready: Path, tmp_path: Path, run_tool: RunTool
) -> None:
    """As before a scheduler's time limit: finish the started images, then exit with 75."""
    out = tmp_path / "out"
    with start(*words(ready, out)) as run:
        wait_for(out / "gray", "*.png", 1)
        run.send_signal(signal.SIGUSR1)
        text, err = run.communicate(timeout=60)
    assert run.returncode == 75 and not err, err
    assert "stopped by a signal" in text and "TEST.skip_existing True continues" in text
    assert not (out / "scores.json").exists() and not list(out.rglob("*.part"))
    code, text, err = run_tool("test", *words(ready, out, "TEST.skip_existing", "True"))
    assert code == 0, err
    assert " 0 predictions were there" not in text and (out / "scores.json").is_file()


def has_begun(run: subprocess.Popen, folder: Path, moment: str) -> bool:
    """Whether a test has come to that moment."""
    if moment == "import":
        return "libtorch" in Path(f"/proc/{run.pid}/maps").read_text()
    if moment == "folder":
        return (folder / "protocol.json").exists()
    return len(list(folder.glob("gray/*/[!.]*.png"))) >= {"loop": 1, "report": IMAGES}[moment]


MOMENTS = [(moment, "SIGTERM") for moment in ("import", "folder", "loop", "report")]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="looks into /proc")
@pytest.mark.parametrize(("moment", "name"), MOMENTS)
def test_a_signal_at_any_moment_ends_the_test_in_order(
    ready: Path, tmp_path: Path, run_tool: RunTool, moment: str, name: str
) -> None:
    out = tmp_path / "out"
    with start(*words(ready, out)) as run:
        end = time.monotonic() + 60
        while not has_begun(run, out, moment):
            assert time.monotonic() < end and run.poll() is None
            time.sleep(0.002)
        run.send_signal(getattr(signal, name))
        _, err = run.communicate(timeout=60)
    assert "Traceback" not in err
    code = 130 if name == "SIGINT" else 75
    is_done = (out / "scores.json").exists()  # the signal may arrive after the test has finished
    assert run.returncode == code or (is_done and run.returncode == 0), err
    code, _, err = run_tool("test", *words(ready, out, "TEST.skip_existing", "True"))
    assert code == 0 and (out / "scores.json").exists(), err
    assert not list(out.rglob("*.part"))
