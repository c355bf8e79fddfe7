"""benchmark gpu, part resume: the quick start's recipe, killed and resumed, weights compared."""

import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from util.config.load import ROOT
from util.extra.benchmark.parts import guarded
from util.extra.benchmark.record import Deadline, Record
from util.extra.benchmark.runs import Command, scores, tool, wait_for
from util.training.checkpoint import checkpoints
from util.training.weight_file import load_file, state_dict_of

RECIPE = ROOT / "config/toy/toy_pspnet18.yaml"
# Runs a tool with deterministic algorithms where available; warns about the others.
DETERMINISTIC = """
import runpy, sys, torch
torch.use_deterministic_algorithms(True, warn_only=True)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@dataclass(frozen=True)
class Size:
    """Number of images and epochs; one run is killed after `kill_after` steps."""

    train: int
    val: int
    epochs: int
    short_epochs: int
    kill_after: int
    kinds: tuple[bool, ...] = (True, False)  # with deterministic algorithms?
    keys: tuple[tuple[str, Any], ...] = ()


FULL = Size(train=300, val=40, epochs=12, short_epochs=3, kill_after=40)
TINY = Size(
    train=8,
    val=2,
    epochs=2,
    short_epochs=2,
    kill_after=1,
    kinds=(True,),
    keys=(
        ("train_h", 33),
        ("train_w", 33),
        ("test_h", 33),
        ("test_w", 33),
        ("base_size", 40),
        ("batch_size", 4),
        ("workers", 0),
    ),
)


def run(record: Record, deadline: Deadline, *, work: Path, log: Path, size: Size) -> None:
    """Add rows: the recipe's score, and the weights of a resumed against an uninterrupted run.

    The latter with and without deterministic algorithms. All training runs are parallel.
    """
    data = work / "toy"
    draw = [str(ROOT / "tool/prepare_toy.py"), "--out", str(data)]
    draw += ["--train", str(size.train), "--val", str(size.val)]
    Command(draw, log).start().end(deadline.left())
    runs = {kind: Pair(kind, work, log, size) for kind in size.kinds}
    for pair in runs.values():
        pair.start()
    for is_deterministic, pair in runs.items():
        name = f"toy recipe, killed and resumed{', deterministic' * is_deterministic}"
        guarded(record, "resume", name, partial(pair.compare, deadline))
    name = "toy recipe, scales 0.75, 1, 1.25"
    guarded(record, "resume", name, lambda: score(runs[size.kinds[-1]], deadline))


class Pair:
    """An uninterrupted run and one that is killed and resumed."""

    def __init__(self, deterministic: bool, work: Path, log: Path, size: Size) -> None:
        self.deterministic, self.log, self.size = deterministic, log, size
        self.folders = [work / f"{name}_{deterministic}" for name in ("whole", "broken")]
        self.keys = {
            "data_root": work / "toy",
            "train_list": work / "toy/list/train.txt",
            "val_list": work / "toy/list/val.txt",
            "test_list": work / "toy/list/val.txt",
            "epochs": size.short_epochs if deterministic else size.epochs,
            "save_every_steps": size.kill_after,
            **dict(size.keys),
        }

    def command(self, folder: Path, **keys: Any) -> Command:
        words = tool("train", RECIPE, {**self.keys, "save_path": folder, **keys})
        environment = {}
        if self.deterministic:
            words = ["-c", DETERMINISTIC, *words]
            environment = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
        return Command(words, self.log.with_name(f"{folder.name}.log"), environment)

    def start(self) -> None:
        """Start both runs."""
        self.began = time.monotonic()
        self.whole, self.broken = (self.command(f).start() for f in self.folders)

    def compare(self, deadline: Deadline) -> dict[str, Any]:
        """Kill one run after its first checkpoint, resume it, wait for both and compare."""
        folder = self.folders[1]
        found = wait_for(
            lambda: bool(checkpoints(folder)) or self.broken.has_ended(),
            deadline.left(),
        )
        self.broken.kill()
        killed_at = checkpoints(folder)[0].name if found and checkpoints(folder) else None
        resumed = self.command(folder, resume="auto").start()
        self.whole.end(deadline.left())
        seconds = time.monotonic() - self.began
        resumed.end(deadline.left())
        one, other = (
            state_dict_of(load_file(checkpoints(f)[0]), source=str(f)) for f in self.folders
        )
        deviation = max(float((one[n].double() - other[n].double()).abs().max()) for n in one)
        text = resumed.log.read_text(errors="replace")
        warned = {
            w.split(" does not have")[0].split()[-1]
            for w in text.splitlines()
            if "does not have a deterministic" in w
        }
        return {
            "killed_at": killed_at,
            "bit_equal": all(torch.equal(one[n], other[n]) for n in one),
            "largest_deviation": deviation,
            "seconds_of_the_whole_run": seconds,
            "not_deterministic": ", ".join(sorted(warned)) or None,
        }


def score(pair: Pair, deadline: Deadline) -> dict[str, Any]:
    """Test the uninterrupted run as in the quick start."""
    keys = {**pair.keys, "save_path": pair.folders[0], "scales": "[0.75, 1.0, 1.25]"}
    folder = pair.folders[0].with_name("toy_result")
    return scores(RECIPE, keys, folder=folder, log=pair.log, deadline=deadline)
