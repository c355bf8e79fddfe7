"""Shared fixtures: a tiny dataset, its config, and running tools in-process or as commands."""

import importlib
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml

from util.error import run_cli

ROOT = Path(__file__).resolve().parent.parent
LONGEST = (  # files of minutes, run first, so that at the end no process waits for one of them
    *("test_benchmark_gpu", "test_invariance", "test_plan", "test_export", "test_trouble"),
    *("test_attack_targets", "test_signals", "test_test_interrupted", "test_other_systems"),
    *("test_adding", "test_hostile_config", "test_kills", "test_benchmark", "test_attack_inputs"),
)
torch.set_num_threads(1)  # more threads slow each other down on a busy machine


def pytest_configure(config: pytest.Config) -> None:
    """Hide GPUs, here and from all processes started here, unless `-m gpu` asks for their tests."""
    if config.getoption("-m").strip() != "gpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.stem not in LONGEST)
    for item in items:
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="needs a GPU and -m gpu"))


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def write_pair(root: Path, name: str, image: np.ndarray, label: np.ndarray) -> str:
    """Write image (RGB) and label below root; returns their list line."""
    for folder in ("images", "labels"):
        (root / folder / name).parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(root / "images" / f"{name}.png"), image[..., ::-1])
    cv2.imwrite(str(root / "labels" / f"{name}.png"), label)
    return f"images/{name}.png labels/{name}.png"


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """YAML of a run on four images 48x64 of three classes: colour tells the class."""
    return write_tiny(tmp_path)


def write_tiny(folder: Path) -> Path:
    """The fixture's YAML and images, in any folder."""
    rng = np.random.default_rng(1)
    colors = np.array([[200, 60, 60], [60, 200, 60], [60, 60, 200]])
    lines = []
    for i in range(4):
        label = np.zeros((48, 64), np.uint8)
        label[:, 20 + 4 * i :] = 1
        label[10:30, 10:40] = 2
        image = colors[label] + rng.integers(-30, 30, (48, 64, 3))
        label[:2] = 255
        lines.append(write_pair(folder / "data", f"p{i}", image.astype(np.uint8), label))
    for name in ("train", "val"):
        (folder / "data" / f"{name}.txt").write_text("\n".join(lines) + "\n")
    config = {
        "DATA": {
            "data_root": str(folder / "data"),
            "train_list": str(folder / "data/train.txt"),
            "val_list": str(folder / "data/val.txt"),
            "classes": 3,
        },
        "TRAIN": {
            "arch": "psp",
            "layers": 18,
            "init_weight": "",
            "train_h": 33,
            "train_w": 33,
            "workers": 0,
            "batch_size": 2,
            "batch_size_val": 3,
            "epochs": 1,
            "manual_seed": 1,
            "print_freq": 1,
            "save_path": str(folder / "run/model"),
        },
        "TEST": {"base_size": 64, "test_h": 33, "test_w": 41},
    }
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.fixture
def free_port() -> int:
    """A TCP port that nobody listens on at this moment."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


RunTool = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run_tool(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> RunTool:
    """run_tool("train", "--config", ...) in this process -> (exit code, stdout, stderr)."""

    def run(name: str, *words: object) -> tuple[int, str, str]:
        main = importlib.import_module(f"tool.{name}").main
        monkeypatch.setattr(sys, "argv", [f"tool/{name}.py", *map(str, words)])
        capsys.readouterr()
        code = 0
        try:
            run_cli(main)
        except SystemExit as stop:
            code = int(stop.code or 0)
        out, err = capsys.readouterr()
        return code, out, err

    return run


def command(
    *words: object, cwd: Path = ROOT, limit: float = 240, **env: str
) -> subprocess.CompletedProcess:
    """Run a command as a user would, without PYTHONPATH unless given."""
    clean = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    return subprocess.run(
        [str(w) for w in words],
        cwd=cwd,
        env={**clean, "PYTHON": sys.executable, **env},
        capture_output=True,
        text=True,
        timeout=limit,
    )


def assert_one_sentence(code: int, err: str, *parts: str) -> None:
    """Exit code 2, one line on stderr, no traceback, and all parts in it."""
    lines = [line for line in err.splitlines() if line.strip()]
    assert code == 2, err
    assert len(lines) == 1 and lines[0].startswith("error: "), err
    for part in parts:
        assert part in lines[0], f"{part!r} not in {lines[0]!r}"
