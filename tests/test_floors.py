"""Layering: who may import whom, and how large a file may grow."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

# A module may import what stands on a lower floor, and its own package. Longest prefix counts.
FLOORS = {
    "util.error": 0,
    "util.config": 1,
    "util.palette": 1,
    "util.metric": 1,
    "util.data.transform": 1,
    "util.training.loss": 1,
    "util.training.schedule": 1,
    "util.training.upsampled_loss": 1,
    "util.training.weight_names": 1,
    "util.training.seed": 1,
    "util.data": 2,
    "util.distributed": 2,
    "util.training.checkpoint": 2,
    "util.training.weight_file": 2,
    "util.logger": 3,
    "util.inference": 3,
    "util.evaluation": 4,
    "util.training": 4,
    "model": 4,
    "util.extra": 5,
    "tool": 6,
}


def own_files() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "util", "model", "tool"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    return [ROOT / name for name in listed if name.endswith(".py") and (ROOT / name).is_file()]


def chapter(module: str) -> str | None:
    """`util.data.image` -> `util.data`, `util.data.transform` -> itself, `numpy` -> None."""
    parts = module.split(".")
    prefixes = (".".join(parts[:n]) for n in range(len(parts), 0, -1))
    return next((prefix for prefix in prefixes if prefix in FLOORS), None)


def package(name: str) -> str:
    """`util.data.transform` -> `util.data`; modules of one package see each other."""
    return ".".join(name.split(".")[:2]) if name.startswith("util.") else name.split(".")[0]


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {name for a in node.names if (name := f"{node.module}.{a.name}") in FLOORS}
    return {name for name in found if name.split(".")[0] in ("util", "model", "tool", "tests")}


def violations(path: Path, module: str) -> list[str]:
    here = chapter(module)
    if here is None:  # util/__init__.py
        return []
    wrong = []
    for name in imports(path):
        there = chapter(name)
        if there is None:
            wrong.append(f"{module} imports {name}, which has no floor")
        elif (there == here and here != "tool") or (
            package(there) == package(here) and FLOORS[there] <= FLOORS[here] and here != "tool"
        ):
            continue
        elif FLOORS[there] >= FLOORS[here]:
            wrong.append(f"{module} imports {name} of the same or a higher floor")
    return wrong


def test_imports_go_down() -> None:
    wrong = []
    for path in own_files():
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        wrong += violations(path, module)
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("module", "line", "is_wrong"),
    [
        ("util.data.image", "import model", True),
        ("util.training.step", "from util.extra.toy import scene", True),
        ("util.config.keys", "from util.data.image import read_image", True),
        ("util.training.loss", "from util.training.state import State", True),
        ("tool.train", "from tool.test import main", True),
        ("util.training.step", "from util.training.loss import pick_labels", False),
        ("tool.train", "from util.extra.report.page import write_report", False),
    ],
)
def test_a_wrong_import_is_found(tmp_path: Path, module: str, line: str, is_wrong: bool) -> None:
    path = tmp_path / "module.py"
    path.write_text(line + "\n")
    assert bool(violations(path, module)) == is_wrong


def test_config_needs_no_torch() -> None:
    code = "import sys, util.config; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
