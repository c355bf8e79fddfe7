"""Same loss curve for any number of processes, any launcher and any number of micro-batches."""

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from tests.conftest import ROOT, write_pair
from tests.helpers.invariance import run
from util.config import load_config
from util.distributed import Process

pytestmark = pytest.mark.slow

SCRIPT = ROOT / "tests/helpers/invariance.py"


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen images with different shares of ignored pixels; five are for validation."""
    folder = tmp_path_factory.mktemp("invariance")
    rng = np.random.default_rng(3)
    lines = []
    for i in range(16):
        label = rng.integers(0, 3, (6, 8)).astype(np.uint8)
        label = cv2.resize(label, (64, 48), interpolation=cv2.INTER_NEAREST)
        image = np.stack([80 * label + rng.integers(0, 40, label.shape)] * 3, axis=-1)
        label[: 3 * i] = 255
        lines.append(write_pair(folder, f"p{i}", image.astype(np.uint8), label))
    (folder / "train.txt").write_text("\n".join(lines))
    (folder / "val.txt").write_text("\n".join(lines[:5]))
    document = {
        "DATA": {
            "data_root": str(folder),
            "train_list": str(folder / "train.txt"),
            "val_list": str(folder / "val.txt"),
            "classes": 3,
        },
        "TRAIN": {
            "layers": 18,
            "init_weight": "",
            "train_h": 33,
            "train_w": 33,
            "workers": 0,
            "batch_size": 8,
            "batch_size_val": 4,
            "epochs": 10,
            "manual_seed": 1,
        },
        "TEST": {"base_size": 64, "test_h": 33, "test_w": 41},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(document))
    return folder / "config.yaml"


def alone(config: Path, *words: object) -> dict:
    out = config.parent / "alone.json"
    words = [*map(str, words), "TEST.save_folder", str(out)]
    run(Process(), load_config(config, words))
    return json.loads(out.read_text())


@pytest.fixture(scope="module", autouse=True)
def small() -> Iterator[None]:
    """Use a small network unless a test overrides this."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SMALL", "1")
        patch.setenv("OMP_NUM_THREADS", "1")  # avoid spinning threads of several processes
        yield


@pytest.fixture(scope="module")
def one(config: Path) -> dict:
    """Return the curve of a single process."""
    return alone(config)


def together(
    config: Path, name: str, *starts: list[str], words: Sequence[tuple] = ((), ())
) -> dict:
    """The curve of processes that the commands start, side by side, each with its words."""
    out = config.parent / f"{name}.json"
    script = [str(SCRIPT), str(out), "--config", str(config)]
    runs = [
        subprocess.Popen(
            [sys.executable, *start, *script, *map(str, more)],
            cwd=ROOT,
            stderr=subprocess.PIPE,
        )
        for start, more in zip(starts, words, strict=False)
    ]
    for process in runs:
        _, err = process.communicate(timeout=200)
        assert process.returncode == 0, err.decode()
    return json.loads(out.read_text())


def assert_same(found: dict, one: dict, *, steps: int = 20) -> None:
    assert len(one["float64"]) == steps
    assert np.ptp(one["float64"]) > 0.01  # the weights change enough to reveal a wrong step
    np.testing.assert_allclose(found["float64"], one["float64"], rtol=1e-9)
    np.testing.assert_allclose(found["float32"], one["float32"], rtol=1e-4)
    loss, wanted = found["val"].pop("loss"), {**one["val"]}
    assert loss == pytest.approx(wanted.pop("loss"), rel=1e-6)
    assert found["val"] == wanted  # ratios of pixel counts: exactly equal


@pytest.mark.parametrize("processes", [2, 4])
def test_spawned_processes(config: Path, one: dict, processes: int) -> None:
    words = ("Distributed.num_processes", processes)
    assert_same(together(config, f"spawn{processes}", [], words=[words]), one)


def test_pspnet18(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMALL", "0")
    words = ("epochs", 3)
    spawned = (*words, "Distributed.num_processes", 2)
    assert_same(together(config, "pspnet18", [], words=[spawned]), alone(config, *words), steps=6)


def test_torchrun(config: Path, one: dict) -> None:
    start = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    assert_same(together(config, "torchrun", start), one)


def test_torchrun_on_two_nodes(config: Path, one: dict, free_port: int) -> None:
    torchrun = ["-m", "torch.distributed.run", "--nnodes=2", "--nproc_per_node=1"]
    torchrun += ["--master_addr=127.0.0.1", f"--master_port={free_port}"]
    starts = [[*torchrun, f"--node_rank={rank}"] for rank in range(2)]
    assert_same(together(config, "nodes", *starts), one)


def test_two_machines_that_meet_at_dist_url(config: Path, one: dict, free_port: int) -> None:
    common = ["Distributed.world_size", "2", "dist_url", f"tcp://127.0.0.1:{free_port}"]
    words = [(*common, "Distributed.rank", rank) for rank in range(2)]
    assert_same(together(config, "url", [], [], words=words), one)


def test_a_batch_in_parts(config: Path) -> None:
    """With frozen BatchNorm: four micro-batches, or two in each of two processes."""
    whole = alone(config, "freeze_bn", True)
    words = ("freeze_bn", True, "accumulate_steps")
    assert_same(alone(config, *words, 4), whole)
    spawned = ("Distributed.num_processes", 2)
    assert_same(together(config, "parts", [], words=[(*words, 2, *spawned)]), whole)
