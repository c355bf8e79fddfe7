"""Each tool with output paths it cannot or must not write to: one sentence, and nothing lost."""

import os
import shutil
from pathlib import Path

import pytest

from tests.conftest import RunTool, assert_one_sentence, tiny
from tests.helpers.attacked import PLACES, UNUSUAL, WRITERS, largest_file, make_world, state_of


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create the inputs of all tools."""
    return make_world(tiny.__wrapped__(tmp_path_factory.mktemp("world")))


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a tool leaves in the current folder is seen."""
    monkeypatch.chdir(tmp_path)


def cases(*, is_refused: bool = False) -> list:
    """Parametrise over WRITERS; the expensive ones are slow unless they are rejected at once."""
    return [
        pytest.param(name, id=name, marks=[pytest.mark.slow] * (w.is_slow and not is_refused))
        for name, w in WRITERS.items()
    ]


def attack(run_tool: RunTool, name: str, world: Path, target: Path) -> int:
    """Run the tool; errors must be one sentence. Exit code 1 means findings in a dataset."""
    code, _, err = run_tool(*WRITERS[name].line(world, target))
    lines = [line for line in err.splitlines() if not line.startswith("warning: ")]
    assert code in ((0, 1, 2) if name == "check_data" else (0, 2)), err
    assert len(lines) == (code == 2), err
    assert all(line.startswith("error: ") and line.isprintable() for line in lines), err
    return code


def assert_kept(before: dict[str, object], *folders: Path) -> None:
    """Assert that existing files are unchanged."""
    after = state_of(*folders)
    assert {path: after.get(path) for path in before} == before


@pytest.mark.parametrize("name", cases(is_refused=True))
@pytest.mark.parametrize("place", PLACES)
def test_invalid_output_paths(
    world: Path, tmp_path: Path, run_tool: RunTool, name: str, place: str
) -> None:
    path = tmp_path / "out" / f"target{WRITERS[name].suffix}"
    path.parent.mkdir()
    target = PLACES[place](path) or path
    before, inputs = state_of(tmp_path), state_of(world)
    code = attack(run_tool, name, world, target)
    assert_kept(before, tmp_path)
    assert state_of(world) == inputs
    assert code == 2
    assert state_of(tmp_path).keys() == before.keys()


@pytest.mark.parametrize("name", cases())
@pytest.mark.parametrize("place", UNUSUAL)
def test_unusual_output_paths(
    world: Path, tmp_path: Path, run_tool: RunTool, name: str, place: str
) -> None:
    target = UNUSUAL[place](tmp_path / f"target{WRITERS[name].suffix}")
    before, inputs = state_of(tmp_path), state_of(world)
    attack(run_tool, name, world, target)
    assert_kept(before, tmp_path)
    assert state_of(world) == inputs


@pytest.mark.parametrize("name", cases())
@pytest.mark.parametrize("size", [0, 5000, 50000])
def test_full_disk(world: Path, tmp_path: Path, run_tool: RunTool, name: str, size: int) -> None:
    target = tmp_path / f"target{WRITERS[name].suffix}"
    inputs = state_of(world)
    with largest_file(size):
        code = attack(run_tool, name, world, target)
    assert state_of(world) == inputs
    assert not [path for path in tmp_path.rglob("*.part*")]
    if WRITERS[name].suffix and code == 2:
        assert not target.exists()


@pytest.mark.parametrize("size", [0, 50000])
def test_a_full_disk_while_converting_does_not_speak_of_training(
    world: Path, tmp_path: Path, run_tool: RunTool, size: int
) -> None:
    target = tmp_path / "new.pth"
    with largest_file(size):
        code, _, err = run_tool(*WRITERS["convert_weights"].line(world, target))
    assert_one_sentence(code, err, f"{target}: File too large", "choose another folder")
    assert "checkpoint" not in err and "TRAIN." not in err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", cases())
def test_users_files_with_the_same_names(
    world: Path, tmp_path: Path, run_tool: RunTool, name: str
) -> None:
    target = tmp_path / "first" / f"target{WRITERS[name].suffix}"
    inputs = state_of(world)
    assert attack(run_tool, name, world, target) != 2, "the tool cannot run at all"
    written = [path for path in target.parent.rglob("*") if not path.is_dir()]
    assert written
    attack(run_tool, name, world, target)  # again, over its own results
    target = tmp_path / "second" / target.name
    for path in written:
        foreign = tmp_path / "second" / path.relative_to(tmp_path / "first")
        foreign.parent.mkdir(parents=True, exist_ok=True)
        foreign.write_text("mine")
    before = state_of(tmp_path / "second")
    attack(run_tool, name, world, target)
    assert_kept(before, tmp_path / "second")
    assert state_of(world) == inputs


@pytest.mark.parametrize(
    ("name", "place"),
    [
        pytest.param(name, place, marks=[pytest.mark.slow] * writer.is_slow)
        for name, writer in WRITERS.items()
        for place in writer.inputs
    ],
)
def test_the_output_is_the_input(
    world: Path, tmp_path: Path, run_tool: RunTool, name: str, place: str
) -> None:
    copy = tmp_path / "world"
    shutil.copytree(world, copy, copy_function=link_or_copy)
    config = copy / "tiny.yaml"
    config.write_text(config.read_text().replace(str(world), str(copy)))
    before = state_of(copy)
    for target in (copy / place, *([copy / place / "new"] if WRITERS[name].is_folder else [])):
        attack(run_tool, name, copy, target)
        assert_kept(before, copy)


def link_or_copy(source: str, target: str) -> None:
    """Large files are never written to again."""
    (os.link if os.path.getsize(source) > 2**20 else shutil.copy2)(source, target)
