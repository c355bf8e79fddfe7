"""tool/prepare_toy.py: reproducible scenes, well-formed folders, and no harm to what exists."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from tool.prepare_toy import draw_dataset
from util.extra.toy.scene import VOID, draw_scene

ROOT = Path(__file__).resolve().parent.parent
SIZE = {"height": 72, "width": 96, "seed": 0}


def files_below(folder: Path) -> dict[str, bytes]:
    """Relative path -> content."""
    paths = sorted(p for p in folder.rglob("*") if p.is_file())
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in paths}


def run_tool(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "tool/prepare_toy.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT.parent, check=False)


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small complete toy folder; tests must not change it."""
    out = tmp_path_factory.mktemp("data") / "toy"
    draw_dataset(out, train=3, val=2, **SIZE)
    return out


def test_same_seed_draws_the_same_bytes_whatever_the_count(toy: Path, tmp_path: Path) -> None:
    draw_dataset(tmp_path, train=2, val=1, **SIZE)
    few, many = files_below(tmp_path), files_below(toy)
    images = [name for name in few if name.startswith(("images/", "labels/"))]
    assert len(images) == 6
    assert all(few[name] == many[name] for name in images)


def test_another_seed_and_the_other_split_draw_other_scenes(toy: Path, tmp_path: Path) -> None:
    draw_dataset(tmp_path, train=1, val=1, **(SIZE | {"seed": 1}))
    first = "images/train/0000.jpg"
    assert (tmp_path / first).read_bytes() != (toy / first).read_bytes()
    assert (toy / first).read_bytes() != (toy / "images/val/0000.jpg").read_bytes()


def test_every_class_is_in_most_scenes_and_void_exists() -> None:
    labels = [draw_scene(np.random.default_rng(i), 120, 160)[1] for i in range(30)]
    ids = [set(np.unique(label).tolist()) for label in labels]
    assert set().union(*ids) == {*range(10), VOID}
    assert set().union(*ids[:10]) >= set(range(10))
    share_of_scenes = [sum(k in scene for scene in ids) / len(ids) for k in range(10)]
    assert min(share_of_scenes) >= 0.6


def test_scene_has_the_size_asked_for() -> None:
    image, label = draw_scene(np.random.default_rng(0), 65, 97)
    assert image.shape == (65, 97, 3) and image.dtype == np.uint8
    assert label.shape == (65, 97) and label.dtype == np.uint8


def test_folder_is_complete_and_readable(toy: Path) -> None:
    for split, count in (("train", 3), ("val", 2)):
        lines = (toy / f"list/{split}.txt").read_text().splitlines()
        assert lines[0] == f"images/{split}/0000.jpg labels/{split}/0000.png"
        assert len(lines) == count
        for line in lines:
            image_name, label_name = line.split()
            image = cv2.imread(str(toy / image_name), cv2.IMREAD_UNCHANGED)
            label = cv2.imread(str(toy / label_name), cv2.IMREAD_UNCHANGED)
            assert image.shape == (72, 96, 3)
            assert label.shape == (72, 96)  # one channel
            assert set(np.unique(label).tolist()) <= {*range(10), VOID}


def test_images_are_stored_in_rgb_order(toy: Path) -> None:
    drawn, _ = draw_scene(np.random.default_rng((0, 0, 0)), 72, 96)
    bgr = cv2.imread(str(toy / "images/train/0000.jpg"))
    error = np.abs(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB).astype(int) - drawn).mean()
    assert error < 6  # JPEG


def test_names_and_colors_have_a_line_for_each_class() -> None:
    names = (ROOT / "dataset/toy_names.txt").read_text().split()
    colors = (ROOT / "dataset/toy_colors.txt").read_text().splitlines()
    assert " ".join(names) == "sky building road sidewalk tree car person sign lamp grass"
    assert len(set(colors)) == 10
    assert all(0 <= int(v) <= 255 for line in colors for v in line.split())


def test_tool_writes_then_leaves_the_same_set_untouched(tmp_path: Path) -> None:
    out = tmp_path / "toy"
    options = ("--out", str(out), "--train", "2", "--val", "1", "--height", "72", "--width", "96")
    first = run_tool(*options)
    assert first.returncode == 0, first.stderr
    assert first.stdout.startswith(f"toy: 2 train and 1 val images in {out} (")
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*")}
    again = run_tool(*options)
    assert again.returncode == 0
    assert "nothing to do" in again.stdout
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*")} == before


def test_an_interrupted_drawing_is_completed(tmp_path: Path) -> None:
    """kill -9 leaves no process; the next run completes the set, even a smaller one."""
    size = ("--height", "240", "--width", "320", "--val", "1")
    command = [sys.executable, str(ROOT / "tool/prepare_toy.py"), "--out", str(tmp_path / "toy")]
    process = subprocess.Popen([*command, "--train", "2000", *size], start_new_session=True)
    while len([*tmp_path.glob("toy/images/train/0*.jpg")]) < 3:
        time.sleep(0.02)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 60
    while is_alive(process.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_alive(process.pid)
    assert json.loads((tmp_path / "toy/toy.json").read_text())["complete"] is False
    assert run_tool(*command[2:], "--train", "4", *size).returncode == 0
    assert run_tool("--out", str(tmp_path / "whole"), "--train", "4", *size).returncode == 0
    again, whole = files_below(tmp_path / "toy"), files_below(tmp_path / "whole")
    assert {name: again[name] for name in whole} == whole
    assert_refused(run_tool(*command[2:], "--train", "5", *size), "train 4 (requested: 5)")


def is_alive(group: int) -> bool:
    """Whether a process of the group runs (a zombie does not)."""
    try:
        os.killpg(group, signal.SIGCONT)
    except ProcessLookupError:
        return False
    return True


def assert_refused(result: subprocess.CompletedProcess[str], *words: str) -> None:
    assert result.returncode == 2
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1
    assert all(word in result.stderr for word in words), result.stderr


def test_rejects_a_folder_with_other_data(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    assert_refused(run_tool("--out", str(tmp_path)), str(tmp_path), "choose another --out")
    assert files_below(tmp_path) == {"mine.txt": b"precious"}


def test_refuses_a_set_with_other_options(toy: Path) -> None:
    before = files_below(toy)
    result = run_tool("--out", str(toy), "--train", "4", "--val", "2", "--height", "72")
    assert_refused(
        result, "train 3 (requested: 4)", "width 96 (requested: 320)", "remove the folder"
    )
    assert files_below(toy) == before


def test_refuses_a_damaged_record(tmp_path: Path) -> None:
    (tmp_path / "toy.json").write_text("{")
    assert_refused(run_tool("--out", str(tmp_path)), "toy.json is damaged")


@pytest.mark.parametrize(
    ("option", "value"), [("--train", "0"), ("--height", "10"), ("--seed", "-1")]
)
def test_refuses_bad_values(tmp_path: Path, option: str, value: str) -> None:
    result = run_tool("--out", str(tmp_path / "toy"), option, value)
    assert_refused(result, f"{option} must be at least", f"got {value}")
