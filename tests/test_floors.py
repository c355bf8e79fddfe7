"""The house: who may import whom, and how large a chapter may grow."""

import ast
from pathlib import Path

from tests.conftest import ROOT

FLOORS = {"util.error": 0, "util.tester": 3, "util.training": 3, "model": 3, "tool": 4}
for name in (
    "bootstrap",
    "config",
    "golden",
    "image",
    "label_map",
    "loss",
    "metric",
    "palette",
    "pipeline",
    "precision",
    "samples",
    "schedule",
    "stopwatch",
    "toy",
    "transform",
    "video",
):
    FLOORS[f"util.{name}"] = 1
for name in (
    "checkpoint",
    "dataset",
    "doctor",
    "inference",
    "logger",
    "plain_loop",
    "prepare",
    "report",
    "results",
    "runtime",
):
    FLOORS[f"util.{name}"] = 2


def chapter(module: str) -> str:
    """`util.config.keys` -> `util.config`, `tool.train` -> `tool`, `model.resnet` -> `model`."""
    parts = module.split(".")
    return ".".join(parts[:2]) if parts[0] == "util" else parts[0]


def own_files() -> list[Path]:
    return [p for top in ("util", "model", "tool") for p in sorted((ROOT / top).rglob("*.py"))]


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{a.name}" for a in node.names)}
    return found


def test_imports_go_down() -> None:
    for path in own_files():
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        if module == "util.__init__":
            continue
        here = chapter(module)
        for name in imports(path):
            there = chapter(name)
            if there not in FLOORS:
                assert name.split(".")[0] not in ("model", "tool") or there in FLOORS, name
                continue
            if there == here and here != "tool":
                continue
            assert FLOORS[there] < FLOORS[here], f"{path}: {here} imports {there}"


def test_config_needs_no_torch() -> None:
    for path in (ROOT / "util/config").glob("*.py"):
        assert not any(name.split(".")[0] == "torch" for name in imports(path)), path


def test_rank_and_device_live_in_runtime() -> None:
    for path in own_files():
        text = path.read_text()
        assert ".cuda()" not in text, path
        if path.parent.name != "runtime":
            assert "if rank == 0" not in text and "LOCAL_RANK" not in text, path


def test_chapters_are_short_and_say_their_job() -> None:
    for path in own_files():
        text = path.read_text()
        if text.strip():
            assert text.startswith('"""'), f"{path} does not begin with its job"
