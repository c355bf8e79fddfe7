"""tool/train.sh and tool/test.sh without SLURM."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

# Says what it was started with and which signals it gets; ends with 75 after the first.
NOISY_PYTHON = """#!{python}
import os, signal, sys, time
def note(number, frame):
    os.write(1, f"got {{signal.Signals(number).name}}\\n".encode())
    time.sleep(0.3)
    sys.exit(75)
for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
    signal.signal(number, note)
print("start", os.getpid(), os.getcwd(), *sys.argv[1:], flush=True)
time.sleep(float(os.environ.get("SECONDS_TO_RUN", 0)))
"""
SHELLS = [shell for shell in ("dash", "bash") if shutil.which(shell)]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with the scripts, a config, and a stand-in for Python."""
    for folder in ("tool", "config/toy"):
        (tmp_path / "project" / folder).mkdir(parents=True)
    for path in (ROOT / "tool").glob("*.sh"):
        shutil.copy(path, tmp_path / "project/tool")
    for name in ("tool/train.py", "config/toy/toy_pspnet18.yaml"):
        (tmp_path / "project" / name).touch()
    (tmp_path / "python").write_text(NOISY_PYTHON.format(python=sys.executable))
    (tmp_path / "python").chmod(0o755)
    return tmp_path / "project"


def start(script: Path, shell: str, **environment: str) -> subprocess.Popen:
    """Start the script from another folder, as leader of a process group."""
    words = [shell, str(script), "toy", "pspnet18", "TRAIN.save_path", "mine"]
    folder = script.parent.parent.parent
    clean = {k: v for k, v in os.environ.items() if not k.startswith("SLURM_")}
    return subprocess.Popen(
        words,
        cwd=folder,
        env={**clean, "PYTHON": str(folder / "python"), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGUSR1", "SIGINT"])
@pytest.mark.parametrize("script", ["train.sh", "test.sh"])
def test_a_signal_to_a_script_reaches_what_it_runs(
    project: Path, script: str, name: str, shell: str
) -> None:
    with start(project / "tool" / script, shell, SECONDS_TO_RUN="60") as run:
        pid = int(run.stdout.readline().split()[1])
        run.send_signal(getattr(signal, name))
        rest = run.stdout.read()
    if script == "test.sh":  # it has exec'ed the tool
        assert run.pid == pid
        assert run.returncode == (75 if name != "SIGINT" else -signal.SIGINT), rest
        return
    assert rest.strip() == f"got {name.replace('SIGINT', 'SIGTERM')}", rest  # no test follows
    assert run.returncode == (75 if name != "SIGINT" else 130)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@pytest.mark.parametrize("shell", SHELLS)
def test_a_second_ctrl_c_ends_what_does_not_end(project: Path, shell: str) -> None:
    python = project.parent / "python"
    python.write_text(python.read_text().replace("sys.exit(75)", ""))
    with start(project / "tool/train.sh", shell, SECONDS_TO_RUN="60") as run:
        pid = int(run.stdout.readline().split()[1])
        run.send_signal(signal.SIGINT)
        assert run.stdout.readline() == "got SIGTERM\n"
        run.send_signal(signal.SIGINT)
        assert run.wait(20) == 130
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@pytest.mark.parametrize("shell", SHELLS)
def test_a_second_ctrl_c_while_the_first_is_handled(project: Path, shell: str) -> None:
    """dash then reports the wrong exit code of the command that was interrupted."""
    (project.parent / "python").write_text("#!/bin/sh\ntrap '' TERM\necho $$\nexec sleep 60\n")
    script = project / "tool/python.sh"
    with script.open("a") as file:
        file.write("""
kill() { # press Ctrl-C again; kill late, so that leaving early can be seen
    case $2 in
        TERM) command kill "$@" && command kill -s INT $$ ;;
        KILL) (sleep 0.5 && command kill "$@") & ;;
        *) command kill "$@" ;;
    esac
}
""")
    with start(project / "tool/train.sh", shell) as run:
        pid = int(run.stdout.readline())
        run.send_signal(signal.SIGINT)
        assert run.wait(20) == 130
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_relative_paths_start_where_the_script_is_called(project: Path) -> None:
    with start(project / "tool/train.sh", "sh") as run:
        trained, tested = (line.split() for line in run.stdout.read().splitlines())
    assert run.returncode == 0
    config = str(project / "config/toy/toy_pspnet18.yaml")
    folder = str(project.parent)
    assert trained[2:] == [folder, f"{project}/tool/train.py", "--config", config, *trained[6:]]
    assert tested[2:4] == [folder, f"{project}/tool/test.py"]
    assert trained[-2:] == tested[-2:] == ["TRAIN.save_path", "mine"]
    assert (project / "exp/toy/pspnet18/model").is_dir()


@pytest.mark.parametrize("script", ["train.sh", "test.sh"])
@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"SLURM_JOB_ID": "7"},  # a shell within a job
        {"SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "1", "SLURM_STEP_ID": "0"},
    ],
)
def test_scripts_start_by_a_link_and_outside_of_jobs(
    project: Path, script: str, environment: dict[str, str]
) -> None:
    link = project / "bin/link"
    link.parent.mkdir()
    link.symlink_to(f"../tool/{script}")
    with start(link, "sh", **environment) as run:
        lines = run.stdout.read().splitlines()
    assert run.returncode == 0, lines
    assert len(lines) == (2 if script == "train.sh" else 1)
    assert all(line.startswith("start ") for line in lines), lines


def test_a_checkout_that_is_read_only(project: Path) -> None:
    """TRAIN.save_path may be elsewhere, so the tool reports folders that cannot be created."""
    (project / "exp").touch()  # blocks the folder, even for root
    with start(project / "tool/train.sh", "sh") as run:
        lines = run.stdout.read().splitlines()
    assert run.returncode == 0 and len(lines) == 2, lines
    assert all(line.startswith("start ") for line in lines), lines
