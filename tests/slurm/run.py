"""Train on two nodes of a real SLURM on this machine: undisturbed, requeued, stopped, killed.

    python tests/slurm/run.py

Needs root and Debian's slurm-wlm and munge; says so and does nothing where they are missing.
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
    with tempfile.TemporaryDirectory(prefix="slurm-") as folder, cluster(Path(folder)) as project:
        whole = train_undisturbed(project)
        train_disturbed(project, whole)
        lose_a_process(project)
    print("SLURM: all as promised")


def train_undisturbed(project: Path) -> Path:
    """A job on two nodes trains, is tested, and leaves the logs of both; returns its run folder."""
    job = submit(project, "exp/toy/whole")
    job.wait()
    assert job.state == "COMPLETED", job.story()
    assert "2 nodes (n[1-2])" in job.output and "CPUs a node: 1(x2)" in job.output, job.story()
    assert "processes: 2" in job.log(0) and "processes: 2" in job.output, job.story()
    assert job.log(1), job.story()
    return job.run


def train_disturbed(project: Path, whole: Path) -> None:
    """Requeued by hand, then told to stop as before a time limit: it goes on to the same end."""
    job = submit(project, "exp/toy/disturbed")
    job.wait_for("Epoch: [2/")
    run("scontrol", "requeue", job.number)
    job.wait_for("Epoch: [4/")
    assert job.log(0).count("going on from") == 1, job.story()
    run("scancel", "--signal=USR1", job.number)
    job.wait()
    assert job.state == "COMPLETED", job.story()
    assert "stopped and saved, as it was cancelled or requeued" in job.output, job.story()
    assert "stopped and saved; it is requeued and will go on" in job.output, job.story()
    assert job.log(0).count("going on from") == 2, job.story()
    assert scores(job.run) == scores(whole), job.story()
    wanted, found = weights(whole), weights(job.run)
    assert all(torch.equal(found[name], wanted[name]) for name in wanted), job.story()


def lose_a_process(project: Path) -> None:
    """A node's process that dies ends the job as failed, soon, with the reason and without a test."""
    job = submit(project, "exp/toy/killed")
    job.wait_for("Epoch: [1/")
    os.kill(job.task(node="n2"), signal.SIGKILL)
    start = time.monotonic()
    job.wait()
    seconds = time.monotonic() - start
    assert job.state == "FAILED" and seconds < 60, job.story()
    assert "n2: task 1: Killed" in job.output, job.story()
    assert "the training ended with exit code 137" in job.output, job.story()
    assert not (job.run / "result").exists(), job.story()
