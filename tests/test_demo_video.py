"""Videos and cameras in the demo."""

import csv
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.conftest import RunTool, assert_one_sentence, command
from tests.helpers.runs import with_weights
from tests.helpers.videos import write_video
from util.data.image import read_image, read_label
from util.extra.demo_files import open_source
from util.extra.video import VideoReader, VideoWriter


@pytest.fixture
def ready(tiny: Path) -> Path:
    return with_weights(tiny)


def images(tmp_path: Path) -> list[np.ndarray]:
    """Enlarge the four images of `tiny`, so that they survive compression."""
    images = [read_image(tmp_path / f"data/images/p{i}.png") for i in range(4)]
    return [cv2.resize(image, (192, 144), interpolation=cv2.INTER_NEAREST) for image in images]


@pytest.mark.parametrize(("suffix", "codec"), [(".avi", "MJPG"), (".mp4", "mp4v")])
def test_a_video(ready: Path, tmp_path: Path, run_tool: RunTool, suffix: str, codec: str) -> None:
    path, out = write_video(tmp_path / f"drive{suffix}", codec, images(tmp_path)), tmp_path / "out"
    code, text, err = run_tool("demo", "--config", ready, "--image", path, "--output", out)
    assert code == 0, err
    assert "drive: 4 frames: class" in text
    with VideoReader(out / "drive_overlay.mp4") as video:
        frames = list(video)
        assert (video.count, video.fps) == (4, 12.5)
    assert [frame.shape for frame in frames] == [(144 + 54, 192, 3)] * 4
    with (out / "drive_shares.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["frame"], row["seconds"]) for row in rows] == [
        ("0", "0.000"),
        ("1", "0.080"),
        ("2", "0.160"),
        ("3", "0.240"),
    ]
    for row in rows:
        assert sum(float(row[f"class {i}"]) for i in range(3)) == pytest.approx(1, abs=2e-4)
    # A frame gives the same result as an image.
    with VideoReader(path) as video:
        cv2.imwrite(str(tmp_path / "frame.png"), next(iter(video))[..., ::-1])
    words = ["--config", ready, "--image", tmp_path / "frame.png", "--output", out]
    assert run_tool("demo", *words)[0] == 0
    gray = read_label(out / "frame_gray.png")
    for i in range(3):
        assert float(rows[0][f"class {i}"]) == pytest.approx((gray == i).mean(), abs=1e-4)


RARE = {"a.flv": "FLV1", "a.3gp": "mp4v", "a.ts": "mp4v", "a.mkv": "MJPG", "a.WMV": "WMV2"}


@pytest.mark.parametrize("name", RARE)
def test_videos_with_rare_suffixes(tmp_path: Path, name: str) -> None:
    frames = [np.full((48, 64, 3), 24 * i, np.uint8) for i in range(10)]
    source = open_source(str(write_video(tmp_path / name, RARE[name], frames)))
    assert isinstance(source, VideoReader)
    with source as video:
        assert len(list(video)) == 10


class FakeCamera:
    """Returns three frames, then simulates Ctrl-C."""

    def __init__(self, source: int) -> None:
        self.frames, self.is_released = 0, False

    def isOpened(self) -> bool:  # noqa: N802 - OpenCV's name
        return True

    def get(self, what: int) -> float:
        return 0.0

    def read(self) -> tuple[bool, np.ndarray]:
        self.frames += 1
        if self.frames > 3:
            raise KeyboardInterrupt
        return True, np.full((48, 64, 3), 60 * self.frames, np.uint8)

    def release(self) -> None:
        self.is_released = True


def test_a_camera_until_it_is_interrupted(
    ready: Path, tmp_path: Path, run_tool: RunTool, monkeypatch: pytest.MonkeyPatch
) -> None:
    camera = FakeCamera(1)
    monkeypatch.setattr(cv2, "VideoCapture", lambda source: camera)
    code, text, err = run_tool("demo", "--config", ready, "--image", 1, "--output", tmp_path)
    assert code == 0, err
    assert "3 frames: " in text and camera.is_released
    monkeypatch.undo()
    (path,) = tmp_path.glob("camera1_2*_overlay.mp4")  # has the time of this recording
    with VideoReader(path) as video:
        assert len(list(video)) == 3 and video.fps == 25
    (table,) = tmp_path.glob("camera1_2*_shares.csv")
    assert len(table.read_text().splitlines()) == 4


@pytest.mark.parametrize("name", ["a_overlay.mp4", "a_shares.csv"])
def test_a_video_does_not_replace_the_users_files(
    ready: Path, tmp_path: Path, run_tool: RunTool, name: str
) -> None:
    path = write_video(tmp_path / "a.avi", "MJPG", images(tmp_path)[:1])
    words = ["--config", ready, "--image", path, "--output", tmp_path]
    (tmp_path / name).write_text("mine")
    code, _, err = run_tool("demo", *words)
    assert_one_sentence(code, err, f"--output: {tmp_path / name} exists")
    assert (tmp_path / name).read_text() == "mine"
    (tmp_path / name).unlink()
    for _ in range(2):  # but it does replace its own
        code, _, err = run_tool("demo", *words)
        assert code == 0, err


def test_the_decoders_are_silent(tmp_path: Path) -> None:
    """In a separate process, because FFmpeg fixes its log level at first use."""
    (tmp_path / "notes.mp4").write_text("no video at all")
    lines = [
        "from pathlib import Path",
        "import numpy",
        "from util.error import DataError",
        "from util.extra.video import VideoReader, VideoWriter",
        f"folder = Path({str(tmp_path)!r})",
        "for source in (folder / 'notes.mp4', 77):",
        "    try: VideoReader(source)",
        "    except DataError as error: print(error)",
        "try: VideoWriter(folder, fps=5).write(numpy.zeros((4, 4, 3), numpy.uint8))",
        "except DataError as error: print(error)",
    ]
    done = command(sys.executable, "-c", "\n".join(lines))
    assert (done.returncode, done.stderr) == (0, "")
    reasons = [line.split(" cannot be ")[1] for line in done.stdout.splitlines()]
    assert [reason.split()[0].rstrip(":") for reason in reasons] == ["decoded", "opened", "written"]


@pytest.mark.parametrize("size", [(50, 64), (49, 63)])
def test_a_video_keeps_every_row_and_column(tmp_path: Path, size: tuple[int, int]) -> None:
    frames = [np.full((*size, 3), (200, 40 * i, 10), np.uint8) for i in range(5)]
    with VideoWriter(tmp_path / "sub/a.mp4", fps=10) as writer:
        for frame in frames:
            writer.write(frame)

    def read() -> Iterator[np.ndarray]:
        with VideoReader(tmp_path / "sub/a.mp4") as video:
            yield from video

    for frame, found in zip(frames, read(), strict=True):
        assert found.shape[:2] == (50, 64)
        inner = found[8:-8, 8:-8].astype(int) - frame[0, 0]
        assert abs(inner).max() < 12  # red stays red: OpenCV has blue first
