"""benchmark gpu, part augment: CamVid scores with the fused and the stepwise augmentation."""

import os
import statistics
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from util.extra.benchmark.gpu_camvid import Setup
from util.extra.benchmark.parts import guarded
from util.extra.benchmark.record import Deadline, Record
from util.extra.benchmark.runs import Command, read_scores, tool

WAYS = ("stepwise", "fused")


@dataclass(frozen=True)
class Run:
    """Training and test with one kind of augmentation and one seed."""

    way: str
    seed: int
    setup: Setup
    epochs: int

    @property
    def name(self) -> str:
        return f"{self.way}_{self.seed}"

    @property
    def folder(self) -> Path:
        return self.setup.work / "augment" / self.name

    def train(self) -> Command:
        keys = {"augment": self.way, "manual_seed": self.seed, "epochs": self.epochs}
        return self._start("train", {**keys, "save_freq": 1000})

    def test(self) -> Command:
        return self._start("test", {"save_folder": self.folder / "result"})

    def _start(self, name: str, keys: dict[str, Any]) -> Command:
        common = {**self.setup.all_keys(), "save_path": self.folder}
        words = tool(name, self.setup.recipe, {**common, **keys})
        return Command(words, self.setup.kept / f"augment_{self.name}.log").start()


def run(
    record: Record, deadline: Deadline, *, setup: Setup, seeds: tuple[int, ...], epochs: int
) -> None:
    """Run all in parallel, since they are not timed; add a row per run and per augmentation."""
    if note := setup.missing():
        record.add("augment", "skipped", note=note)
        return
    runs = [Run(way, seed, setup, epochs) for seed in seeds for way in WAYS]
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    for step in (Run.train, Run.test):
        commands = [step(run) for run in runs]
        for one, command in zip(runs, commands, strict=True):
            title = f"{step.__name__}, {one.way}, seed {one.seed}"
            if not guarded(record, "augment", title, partial(command.end, deadline.left())):
                for other in commands:
                    other.kill()
                return
    found = {run: read_scores(run.folder / "result") for run in runs}
    for one, values in found.items():
        record.add("augment", f"{setup.recipe.stem}, {one.way}, seed {one.seed}", **values)
    for way in WAYS:
        record.add("augment", f"{way}, mean", **_summary(way, found, epochs))


def _summary(way: str, found: dict[Run, dict], epochs: int) -> dict[str, Any]:
    scores = [values["miou"] for run, values in found.items() if run.way == way]
    spread = statistics.stdev(scores) if len(scores) > 1 else None
    return {"miou": statistics.mean(scores), "deviation": spread, "epochs": epochs}
