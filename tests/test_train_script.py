"""tool/train.sh under SLURM, with stand-ins for Python and srun.

tests/slurm/run.py uses the real ones.
"""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import ROOT

FAKES = {
    # Records its options and runs the command like the first of two nodes.
    "srun": """
        while case $1 in --*) ;; *) false ;; esac; do
            echo "srun $1" >>"$CALLS"
            case $1 in --output=*) log=${1#--output=} ;; esac
            shift
        done
        if [ -n "${CANCEL:-}" ]; then kill -TERM "$PPID"; fi
        echo "the other node speaks" >>"${log%-%n.log}-1.log"
        exec "$@" >>"${log%-%n.log}-0.log" 2>&1
    """,
    "scontrol": 'echo "scontrol $*" >>"$CALLS"; exit "${REFUSED:-0}"',
    "python": """
        echo "$*" >>"$CALLS"
        echo "python speaks"
        case $1 in */tool/train.py) exit "${CODE:-0}" ;; esac
    """,
}


@dataclass(frozen=True)
class Job:
    """Exit code, output and calls (one per line) of a job."""

    code: int
    output: str
    calls: list[str]

    @property
    def trained(self) -> list[str]:
        return [call for call in self.calls if "/tool/train.py" in call]

    @property
    def tested(self) -> bool:
        return any("/tool/test.py" in call for call in self.calls)

    @property
    def requeued(self) -> bool:
        return "scontrol requeue 7" in self.calls


def submit(tmp_path: Path, **environment: str) -> Job:
    """Run the script from a spool folder, as sbatch does, on two nodes."""
    project, spool, calls = tmp_path / "project", tmp_path / "spool", tmp_path / "calls"
    for folder in (project / "tool", project / "config/toy", spool):
        folder.mkdir(parents=True)
    for name in ("python.sh", "train.py"):
        (project / "tool" / name).write_text((ROOT / "tool" / name).read_text())
    (project / "config/toy/toy_pspnet18.yaml").touch()
    (spool / "slurm_script").write_text((ROOT / "tool/train.sh").read_text())
    for name, text in FAKES.items():
        (spool / name).write_text(f"#!/bin/sh\n{text}\n")
        (spool / name).chmod(0o755)
    job = {
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_JOB_NODELIST": "gpu[3-4]",
        "SLURM_JOB_CPUS_PER_NODE": "16(x2)",
        "SLURM_GPUS_ON_NODE": "8",
        "SLURM_MEM_PER_NODE": "65536",
        "SLURM_SUBMIT_DIR": str(project),
    }
    done = subprocess.run(
        ["sh", spool / "slurm_script", "toy", "pspnet18", "TRAIN.epochs", "2"],
        env={
            "PATH": f"{spool}:{os.environ['PATH']}",
            "PYTHON": str(spool / "python"),
            "CALLS": str(calls),
            **job,
            **environment,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=30,
    )
    return Job(done.returncode, done.stdout, calls.read_text().splitlines())


def test_a_job_trains_and_tests_on_every_node(tmp_path: Path) -> None:
    job = submit(tmp_path)
    assert job.code == 0, job.output
    assert {"srun --nodes=2", "srun --ntasks=2", "srun --ntasks-per-node=1"} <= set(job.calls)
    project = tmp_path / "project"
    words = f"--config {project}/config/toy/toy_pspnet18.yaml"
    assert job.trained == [f"{project}/tool/train.py {words} TRAIN.epochs 2"]
    assert job.calls[-1] == f"{project}/tool/test.py {words} TEST.model_path  TRAIN.epochs 2"
    assert job.calls.count("srun --nodes=2") == 2  # for train and test
    first = job.output.splitlines()[0]
    for part in ("2 nodes (gpu[3-4])", "GPUs a node: 8", "CPUs a node: 16(x2)", "65536 MB a node"):
        assert part in first
    log = tmp_path / "project/exp/toy/pspnet18/model/slurm-7-0.log"
    assert log.read_text() == "python speaks\n" * 2
    assert job.output.count("python speaks") == 2


def test_a_job_without_gpus_says_so(tmp_path: Path) -> None:
    for gpus in ("", "0", "8"):
        job = submit(tmp_path / f"with{gpus}", SLURM_GPUS_ON_NODE=gpus)
        found = "no GPUs and runs on CPUs: to get some, sbatch --gres=gpu:8 tool/train.sh toy"
        assert (found in job.output) == (gpus != "8"), job.output


def test_a_job_that_is_started_again_keeps_its_predictions(tmp_path: Path) -> None:
    """tool/train.py reads SLURM_RESTART_COUNT itself, so that TRAIN.resume FILE stays in force."""
    job = submit(tmp_path, SLURM_RESTART_COUNT="1")
    assert job.trained[0].endswith("TRAIN.epochs 2 TEST.skip_existing True")


@pytest.mark.parametrize(
    ("environment", "requeued", "part"),
    [
        ({}, True, "it is requeued and will resume"),
        (
            {"REFUSED": "1"},
            True,
            "the same command and TRAIN.resume auto TEST.skip_existing True",
        ),
        # Requeueing a cancelled job would restart it.
        ({"CANCEL": "yes"}, False, "because it was cancelled or requeued"),
    ],
)
def test_a_stopped_job_is_requeued(
    tmp_path: Path, environment: dict[str, str], requeued: bool, part: str
) -> None:
    job = submit(tmp_path, CODE="75", **environment)
    assert job.code == 75 and part in job.output, job.output
    assert job.requeued == requeued and not job.tested


def test_a_failed_job_says_so_and_tests_nothing(tmp_path: Path) -> None:
    job = submit(tmp_path, CODE="7")
    assert job.code == 7 and not job.requeued and not job.tested
    assert "tool/train.py failed with exit code 7" in job.output
    assert "slurm-7-1.log\nthe other node speaks" in job.output


def test_sbatch_from_another_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "calls").touch()
    job = submit(tmp_path, SLURM_SUBMIT_DIR=str(tmp_path))
    assert job.code == 2 and not job.calls
    assert "call sbatch in the project's folder" in job.output
