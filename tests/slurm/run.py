"""Train on two nodes of a real SLURM on this machine: uninterrupted, requeued, stopped, killed.

    python tests/slurm/run.py

Needs root and Debian's slurm-wlm and munge; without them it prints a message and does nothing.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
EPOCHS = 6
TOY = ["--train", "24", "--val", "4", "--height", "96", "--width", "128"]
# A run of seconds: small crops, float32, one thread a process, one loader process a node.
WORDS = f"""
    TRAIN.train_h 65 TRAIN.train_w 65 TRAIN.epochs {EPOCHS} TRAIN.print_freq 1 TRAIN.workers 2
    TRAIN.amp off TRAIN.channels_last False
    TEST.test_amp off TEST.base_size 128 TEST.test_h 65 TEST.test_w 65
""".split()


def main() -> None:
    if os.getuid() != 0 or not all(map(shutil.which, ("slurmctld", "slurmd", "munged"))):
        print("SLURM: skipped, it needs root and the packages slurm-wlm and munge")
        return
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="slurm-") as folder, cluster(Path(folder)) as project:
        whole = train_undisturbed(project)
        print(f"SLURM: trained and tested on two nodes, after {time.monotonic() - start:.0f} s")
        train_disturbed(project, whole)
        print(f"SLURM: requeued and stopped, same result, after {time.monotonic() - start:.0f} s")
        lose_a_process(project)
        print(f"SLURM: a lost node ends the job, after {time.monotonic() - start:.0f} s")


def train_undisturbed(project: Path) -> Path:
    """Train and test on two nodes, check both logs, and return the run folder."""
    job = submit(project, "exp/toy/whole")
    job.wait()
    assert job.state == "COMPLETED", job.story()
    assert "2 nodes (n[1-2])" in job.output and "CPUs a node: 1(x2)" in job.output, job.story()
    assert "processes: 2" in job.log(0) and "processes: 2" in job.output, job.story()
    assert "Eval result" in job.output and "Eval result" in job.log(0), job.story()
    for node in range(2):
        assert f"starting 1 process of machine {node} of 2" in job.log(node), job.story()
    return job.run


def train_disturbed(project: Path, whole: Path) -> None:
    """Requeue a job, then send the signal of a time limit: the resumed run ends the same."""
    job = submit(project, "exp/toy/disturbed")
    job.wait_for("Epoch: [2/")
    run("scontrol", "requeue", job.number)
    job.wait_for("Epoch: [4/")
    assert job.log(0).count("continuing from") == 1, job.story()
    run("scancel", "--signal=USR1", job.number)
    job.wait()
    assert job.state == "COMPLETED", job.story()
    assert "stopped and saved because it was cancelled or requeued" in job.output, job.story()
    assert "stopped and saved; it is requeued and will resume" in job.output, job.story()
    assert job.log(0).count("continuing from") == 2, job.story()
    assert scores(job.run) == scores(whole), job.story()
    wanted, found = weights(whole), weights(job.run)
    assert all(torch.equal(found[name], wanted[name]) for name in wanted), job.story()


def lose_a_process(project: Path) -> None:
    """If the processes of a node die, the job fails soon, names the cause and runs no test."""
    job = submit(project, "exp/toy/killed")
    job.wait_for("Epoch: [1/")
    for process in job.processes(node="n2"):
        os.kill(process, signal.SIGKILL)
    start = time.monotonic()
    job.wait()
    seconds = time.monotonic() - start
    assert job.state == "FAILED" and seconds < 60, job.story()
    assert "n2: task 1: Killed" in job.output, job.story()
    assert job.output.count("error: rank 0") == 1 and "lost another process" in job.output
    assert "tool/train.py failed with exit code 137" in job.output, job.story()
    assert not (job.run / "result").exists(), job.story()


# The cluster, a project to run in, a job ----------------------------------------------------------


@contextlib.contextmanager
def cluster(folder: Path) -> Iterator[Path]:
    """Run SLURM, with the code and a small toy dataset in the given project folder."""
    project = folder / "project"
    for name in ("config", "dataset", "exp", "model", "tool", "util"):
        shutil.copytree(ROOT / name, project / name, ignore=own_files_only)
    run(sys.executable, "tool/prepare_toy.py", "--out", "dataset/toy", *TOY, cwd=project)
    script = ["sh", ROOT / "tests/slurm/cluster.sh"]
    os.environ |= {
        "SLURM_CONF": str(folder / "cluster/slurm.conf"),
        "PYTHON": sys.executable,
        "OMP_NUM_THREADS": "1",
    }
    run(*script, "start", folder / "cluster")
    try:
        yield project
    finally:
        run(*script, "stop", folder / "cluster")


def own_files_only(folder: str, names: list[str]) -> set[str]:
    """Ignore function for copytree that skips the user's data and runs."""
    path = Path(folder)
    is_users = path == ROOT / "exp" or path == ROOT / "dataset"
    return {name for name in names if is_users and (path / name).is_dir()} | {"__pycache__"}


@dataclass(frozen=True)
class Job:
    """A job of tool/train.sh whose run folder is `run`, below the project."""

    number: str
    project: Path
    run: Path

    @property
    def state(self) -> str:
        """RUNNING, COMPLETED, ..."""
        shown = run("scontrol", "show", "job", self.number)
        return shown.partition("JobState=")[2].split()[0]

    @property
    def output(self) -> str:
        """What sbatch's output file holds."""
        return read(self.project / f"slurm-{self.number}.out")

    def log(self, node: int) -> str:
        """The log of a node, by its number."""
        return read(self.project / f"exp/toy/pspnet18/model/slurm-{self.number}-{node}.log")

    def processes(self, *, node: str) -> list[int]:
        """The training processes on a node of this name."""
        wanted = {f"SLURM_JOB_ID={self.number}", f"SLURMD_NODENAME={node}", "SLURM_STEP_ID=0"}
        found = []
        for path in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):  # it has exited meanwhile
                if wanted <= set(path.read_text(errors="replace").split("\0")):
                    found.append(int(path.parent.name))
        return found

    def wait_for(self, words: str) -> None:
        """Wait until the first node's log contains the text."""
        self._wait(lambda: words in self.log(0))

    def wait(self) -> None:
        """Wait until the job has finished."""
        self._wait(lambda: False)

    def _wait(self, condition: Callable[[], bool]) -> None:
        limit = time.monotonic() + 240
        while not condition():
            if self.state in ("COMPLETED", "FAILED", "TIMEOUT", "CANCELLED"):
                return
            assert time.monotonic() < limit, self.story()
            time.sleep(0.1)

    def story(self) -> str:
        """Collect all output of the job for a failed assertion."""
        return f"job {self.number}: {self.state}\n{self.output}\n== node 1\n{self.log(1)}"


def submit(project: Path, folder: str) -> Job:
    """sbatch -N 2 tool/train.sh toy pspnet18 ..., with its run in `folder`."""
    words = [*WORDS, "TRAIN.save_path", f"{folder}/model"]
    command = ["sbatch", "--parsable", "-N", "2", "tool/train.sh", "toy", "pspnet18", *words]
    return Job(run(*command, cwd=project).strip(), project, project / folder)


def run(*command: object, cwd: Path | None = None) -> str:
    """Run a command that must succeed; returns its stdout."""
    words = [str(word) for word in command]
    return subprocess.run(words, cwd=cwd, check=True, stdout=subprocess.PIPE, text=True).stdout


def read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def scores(folder: Path) -> tuple[float, ...]:
    """mIoU, mAcc, aAcc of the test that followed the training."""
    (path,) = folder.glob("result/epoch_*/val/ss/scores.json")
    found = json.loads(path.read_text())
    return found["miou"], found["macc"], found["aacc"]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """Load the weights of the last epoch."""
    return torch.load(folder / f"model/train_epoch_{EPOCHS}.pth", weights_only=True)["state_dict"]


if __name__ == "__main__":
    main()
