"""tool/*.sh: creating the environment, and forwarding signals to the running command."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import ROOT


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Create a project with only the scripts, and `python3` in bin/."""
    shutil.copytree(ROOT / "tool", tmp_path / "my project/tool", ignore=lambda *_: ["__pycache__"])
    shutil.copy(ROOT / "pyproject.toml", tmp_path / "my project")
    (tmp_path / "my project/empty.txt").write_text("")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/python3").symlink_to(sys.executable)
    return tmp_path / "my project"


def start(project: Path, script: str) -> subprocess.Popen[str]:
    (project / "script.sh").write_text(f"set -eu\n. tool/install.sh\n{script}\n")
    env = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    env["PATH"] = f"{project.parent / 'bin'}:{env['PATH']}"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(
        ["sh", "script.sh"], cwd=project, env=env, start_new_session=True, **pipes
    )


def no_venv(project: Path) -> None: ...


def dangling_python(project: Path) -> None:
    (project / ".venv/bin").mkdir(parents=True)
    (project / ".venv/bin/python").symlink_to("/usr/bin/python3.0")


def venv_without_pip(project: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", project / ".venv"], check=True)


def interrupted_venv(project: Path) -> None:
    """The state after Ctrl-C: the interpreter without pyvenv.cfg."""
    (project / ".venv/bin").mkdir(parents=True)
    shutil.copy("/bin/false", project / ".venv/bin/python")


@pytest.mark.slow
@pytest.mark.parametrize("spoil", [no_venv, dangling_python, venv_without_pip, interrupted_venv])
def test_install_recovers_from(project: Path, spoil: Callable[[Path], None]) -> None:
    spoil(project)
    process = start(project, 'install empty.txt; "$PYTHON" -m pip --version')
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert str(project / ".venv") in out


def test_no_venv_module_is_one_sentence(project: Path) -> None:
    """Debian without python3-venv."""
    fake = project.parent / "bin/python3"
    fake.unlink()
    fake.write_text(f'#!/bin/sh\n[ "$2" = venv ] && exit 1\nexec {sys.executable} "$@"\n')
    fake.chmod(0o755)
    process = start(project, "install empty.txt")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2 and "apt-get install python3-venv" in err
    fake.write_text("#!/bin/sh\n[ $# = 2 ] && exit 1\necho Python 3.8.1\n")
    process = start(project, "install empty.txt")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2 and "python3 is Python 3.8.1, need" in err


HANDLER = """
import os, signal, sys, time
def stop(number, frame):
    os.write(1, f"stopped by {signal.Signals(number).name}\\n".encode())
    time.sleep(0.2)
    sys.exit(75)
for name in sys.argv[1:]:
    signal.signal(getattr(signal, name), stop)
print("ready", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1", "SIGHUP"])
def test_a_signal_to_a_script_reaches_its_command(project: Path, name: str) -> None:
    (project / "wait.py").write_text(HANDLER)
    process = start(project, f'run "$PYTHON" wait.py {name}; echo not reached')
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.Signals[name])
    out, err = process.communicate(timeout=60)
    assert (out, process.returncode) == (f"stopped by {name}\n", 75), err


def test_ctrl_c_ends_a_script_and_its_command(project: Path) -> None:
    (project / "wait.py").write_text(HANDLER)
    process = start(project, 'run "$PYTHON" wait.py SIGTERM; echo not reached')
    assert process.stdout.readline() == "ready\n"
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (out, process.returncode) == ("stopped by SIGTERM\n", 130), err


def test_a_killed_command_ends_the_script(project: Path) -> None:
    process = start(project, 'run "$PYTHON" -c "import os; os.kill(os.getpid(), 9)"; echo no')
    out, _ = process.communicate(timeout=60)
    assert (out, process.returncode) == ("", 128 + 9)


def test_a_command_reads_what_the_script_reads(project: Path) -> None:
    process = start(project, 'echo hello | { run "$PYTHON" -c "print(input())"; }')
    assert process.communicate(timeout=60)[0] == "hello\n"


def test_a_signal_while_installing_leaves_no_process(project: Path) -> None:
    fake = project.parent / "bin/python3"
    fake.unlink()
    fake.write_text(f'#!/bin/sh\n[ "$2" = venv ] && exec sleep 60\nexec {sys.executable} "$@"\n')
    fake.chmod(0o755)
    process = start(project, "install empty.txt")
    assert process.stdout.readline() == "== creating .venv\n"
    time.sleep(0.5)
    process.terminate()
    assert process.wait(60) == 75
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
