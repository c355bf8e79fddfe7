"""tool/demo.py: which files it reads and writes, and mistakes; images are in test_run.py."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import RunTool, assert_one_sentence
from tests.helpers.runs import with_weights
from tests.helpers.videos import write_video
from util.extra.demo_files import open_source
from util.extra.video import VideoReader


@pytest.fixture
def ready(tiny: Path) -> Path:
    return with_weights(tiny)


def test_files_without_a_known_suffix_are_told_by_what_they_hold(tmp_path: Path) -> None:
    frames = [np.full((48, 64, 3), 60 * i, np.uint8) for i in range(3)]
    write_video(tmp_path / "a.avi", "MJPG", frames).rename(tmp_path / "film.weird")
    assert isinstance(open_source(str(tmp_path / "film.weird")), VideoReader)
    Image.fromarray(frames[0]).save(tmp_path / "photo", "JPEG")
    assert open_source(str(tmp_path / "photo")) == [(tmp_path / "photo", "photo")]
    stills = [Image.fromarray(frame) for frame in frames]
    stills[0].save(tmp_path / "still.gif")
    assert open_source(str(tmp_path / "still.gif")) == [(tmp_path / "still.gif", "still")]
    stills[0].save(tmp_path / "moving.gif", save_all=True, append_images=stills[1:])
    assert isinstance(open_source(str(tmp_path / "moving.gif")), VideoReader)


def test_images_of_linked_folders(tmp_path: Path) -> None:
    for path in (tmp_path / "in/a.png", tmp_path / "disk/b.png", tmp_path / "disk/b.jpg"):
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (4, 4)).save(path)
    (tmp_path / "in/night").symlink_to(tmp_path / "disk")
    (tmp_path / "in/night/up").symlink_to(tmp_path / "in")  # an endless loop
    found = [name for _, name in open_source(str(tmp_path / "in"))]
    assert found == ["a", "night/b.jpg", "night/b.png"]


def test_help_leads_to_that_of_exported_files(run_tool: RunTool) -> None:
    code, out, _ = run_tool("demo", "--help")
    assert code == 0 and "python tool/demo.py --model FILE.onnx --help" in out
    code, out, _ = run_tool("demo", "--model", "FILE.onnx", "--help")
    assert code == 0 and "an .onnx file written by tool/export.py" in out


def test_mistakes(ready: Path, tmp_path: Path, run_tool: RunTool) -> None:
    (tmp_path / "notes.mp4").write_text("no video at all")
    (tmp_path / "notes.txt").write_text("no image at all")
    (tmp_path / "empty").mkdir()
    os.mkfifo(tmp_path / "fifo")
    image = tmp_path / "data/images/p0.png"
    for words, part in (
        (
            ["--image", tmp_path / "notes.mp4"],
            "notes.mp4 cannot be decoded: it is damaged, not a video",
        ),
        (["--image", tmp_path / "notes.txt"], "notes.txt cannot be decoded"),
        (["--image", "77"], "camera 77 cannot be opened"),
        (["--image", "7" * 30], "cannot be opened"),
        (["--image", "²"], "--image: no file or folder ²"),
        (["--image", ""], "--image must be a file, a folder or a camera number, got ''"),
        (["--image", "/dev/null"], "--image must be a file, a folder or a camera number"),
        (["--image", tmp_path / "fifo"], "--image must be a file, a folder or a camera number"),
        (["--image", tmp_path / "empty"], "has no images"),
        (["--image", tmp_path / "data/imagse"], "nearest: "),
        (["--image", image, "--attention", "1,2"], "--attention needs a PSANet"),
        (["TEST.scales", "[]", "--image", image], "TEST.scales is empty"),  # in any order
    ):
        code, _, err = run_tool("demo", "--config", ready, *words)
        assert_one_sentence(code, err, part)


@pytest.mark.parametrize("place", ["file", "fifo", "loop", "dangling", "/dev/null", "file/below"])
def test_an_output_that_cannot_be_a_folder(
    ready: Path, tmp_path: Path, run_tool: RunTool, place: str
) -> None:
    (tmp_path / "file").write_text("mine")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    words = ["--config", ready, "--image", tmp_path / "data/images/p0.png"]
    code, _, err = run_tool("demo", *words, "--output", tmp_path / place)
    assert_one_sentence(code, err, "--output: cannot create the folder", "choose another")
    assert (tmp_path / "file").read_text() == "mine" and not (tmp_path / "nowhere").exists()


USERS = ["p0_gray.png", "p1_color.png", "p2_overlay.png", "p3_gray.png"]


@pytest.mark.parametrize("name", USERS)
def test_the_folder_of_the_images_keeps_the_users_files(
    ready: Path, tmp_path: Path, run_tool: RunTool, name: str
) -> None:
    folder = tmp_path / "data/images"
    shutil.copy(folder / "p3.png", folder / name)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    for _ in range(2):
        words = ["--config", ready, "--image", folder, "--output", folder]
        code, _, err = run_tool("demo", *words)
        assert_one_sentence(code, err, f"--output: {folder / name} ", "choose another folder")
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_second_run_replaces_its_own_results_and_does_not_take_them_as_images(
    ready: Path, tmp_path: Path, run_tool: RunTool
) -> None:
    folder = tmp_path / "data/images"
    words = ["--config", ready, "--image", folder, "--output", folder]
    assert run_tool("demo", *words)[0] == 0
    first = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert len(first) == 4 + 3 * 4
    code, out, err = run_tool("demo", *words)
    assert code == 0, err
    assert "12 results of an earlier run" in out
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == first
