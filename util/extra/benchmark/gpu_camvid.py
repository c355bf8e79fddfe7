"""benchmark gpu, part camvid: PSPNet50 from ImageNet weights for as many epochs as time allows."""

import shutil
import statistics
import time
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from model.pretrained import PRETRAINED
from util.config import ROOT
from util.error import RunError
from util.extra.benchmark.parts import guarded
from util.extra.benchmark.record import Deadline, Record
from util.extra.benchmark.runs import Command, epochs_of, scores, tool, wait_for
from util.extra.parallel import available_cores

SINGLE, MULTI = "[1.0]", "[0.5, 0.75, 1.0, 1.25, 1.5, 1.75]"
TRIAL_EPOCHS = 4
USED = 0.9  # fraction of the remaining time to plan for
FULL = (("batch_size", 16), ("base_lr", 0.01), ("amp", "bf16"), ("test_amp", "bf16"))
TINY = (
    *(("layers", 18), ("init_weight", ""), ("batch_size", 4), ("workers", 0)),
    *((side, 33) for side in ("train_h", "train_w", "test_h", "test_w")),
    ("base_size", 48),
)


@dataclass(frozen=True)
class Setup:
    """Paths of data and weights, and training options."""

    recipe: Path
    data_root: Path
    weights: str
    work: Path
    log: Path
    kept: Path  # folder for logs and reports
    test_seconds: float  # for all tests together
    max_epochs: int
    keys: tuple[tuple[str, Any], ...] = ()

    def all_keys(self) -> dict[str, Any]:
        """Overrides of the recipe."""
        lists = {f"{name}_list": self.data_root / f"list/{name}.txt" for name in ("train", "val")}
        return {
            "data_root": self.data_root,
            **lists,
            "test_list": lists["val_list"],
            "init_weight": self.weights,
            "workers": max(2, min(12, available_cores() - 2)),
            "evaluate": False,
            **dict(self.keys),
        }

    def missing(self) -> str:
        """Name a missing file of the data or the weights, '' if there is none."""
        weights = self.all_keys()["init_weight"]
        files = [self.data_root / "list/train.txt"]
        if weights not in ("", PRETRAINED) and "{layers}" not in weights:
            files.append(ROOT / weights)
        return next((f"no {path}" for path in files if not path.is_file()), "")


def run(record: Record, deadline: Deadline, *, setup: Setup) -> None:
    """Add rows: the measured epoch and the plan, the training, single- and multi-scale scores."""
    if note := setup.missing():
        record.add("camvid", "skipped", note=note)
        return
    name = setup.recipe.stem
    epoch, start = trial(setup, deadline)
    free = (deadline.left() - setup.test_seconds - start) * USED
    epochs = int(min(setup.max_epochs, free / epoch))
    record.add(
        "camvid", f"{name}, plan", seconds_an_epoch=epoch, seconds_to_start=start, epochs=epochs
    )
    if epochs < 1:
        return
    folder = setup.work / "camvid"
    keys = {**setup.all_keys(), "epochs": epochs, "save_path": folder}
    keys["save_freq"] = max(1, epochs // 4)  # leaves a checkpoint to test if time runs out
    title = f"{name}, {epochs} epochs"
    guarded(record, "camvid", title, lambda: train(setup, keys, deadline))
    keep(folder, setup.kept)
    base = keys.get("base_size", 480)
    for scales, size in ((SINGLE, base), (MULTI, base), (SINGLE, 2 * base)):
        words = f"{name}, scales {scales}, base_size {size}"
        test = {**keys, "scales": scales, "base_size": size}
        result = setup.work / f"result_{len(scales)}_{size}"
        guarded(
            record,
            "camvid",
            words,
            partial(scores, setup.recipe, test, folder=result, log=setup.log, deadline=deadline),
        )
        if (result / "report.html").is_file():
            shutil.copy(result / "report.html", setup.kept / f"{result.name}.html")


def trial(setup: Setup, deadline: Deadline) -> tuple[float, float]:
    """Train a few epochs; return (seconds per epoch, seconds until the end of the first)."""
    folder, began = setup.work / "trial", time.monotonic()
    keys = {**setup.all_keys(), "epochs": 1000, "save_path": folder, "save_freq": 1000}
    command = Command(tool("train", setup.recipe, keys), setup.log).start()
    moments: list[float] = []
    try:
        while len(moments) < TRIAL_EPOCHS:
            number = len(moments)

            def has_more(number: int = number) -> bool:
                return len(epochs_of(folder)) > number or command.has_ended()

            wait_for(has_more, deadline.left() / 2)
            if len(epochs_of(folder)) == number:
                if command.has_ended():
                    command.end(1)
                raise RunError(f"only {number} of {TRIAL_EPOCHS} epochs in the available time")
            moments.append(time.monotonic())
    finally:
        command.kill()
    gaps = [b - a for a, b in pairwise(moments)]
    return statistics.median(gaps), moments[0] - began


def train(setup: Setup, keys: dict[str, Any], deadline: Deadline) -> dict[str, Any]:
    """Train, and return the last epoch's record and the total seconds."""
    began = time.monotonic()
    command = Command(tool("train", setup.recipe, keys), setup.log).start()
    command.end(deadline.left() - setup.test_seconds / 3)
    last = epochs_of(Path(keys["save_path"]))[-1]
    names = ("train_loss", "train_miou", "images_per_second")
    return {"seconds": time.monotonic() - began, **{n: last.get(n) for n in names}}


def keep(folder: Path, kept: Path) -> None:
    """Copy a training run's records, without weights."""
    target = kept / "camvid_training"
    shutil.copytree(folder, target, ignore=shutil.ignore_patterns("*.pth"), dirs_exist_ok=True)
