"""Video files and cameras -> frames, and frames -> a video file; both by OpenCV."""

import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import cv2
import numpy as np

from util.error import DataError

VIDEO_SUFFIXES = (
    *(".3g2", ".3gp", ".asf", ".avi", ".divx", ".f4v", ".flv", ".m2ts", ".m2v", ".m4v", ".mjpeg"),
    *(".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".mxf", ".ogv", ".ts", ".vob", ".webm"),
    *(".wmv", ".y4m"),
)
USUAL_FPS = 25.0  # where a camera does not say
_MARK = b"\0\0\0\x18freemade with semseg"  # a box that players skip, at the end of our files


class VideoReader:
    """The frames of a file, or of a camera by its number, as RGB (H, W, 3) uint8, upright.

    `name` is for files of results, `count` the number of frames that a file claims to hold, None if
    unknown, `fps` frames a second. A context: leaving it lets go of the camera. Raises DataError.
    """

    def __init__(self, source: Path | int) -> None:
        _silence()
        self.is_camera = isinstance(source, int)
        # Each recording of a camera is another one.
        self.name = f"camera{source}_{datetime.now():%Y%m%d_%H%M%S}"
        if isinstance(source, Path):
            self.name = source.stem
        try:
            self._capture = cv2.VideoCapture(source if isinstance(source, int) else str(source))
            is_read, self._first = self._capture.read()
        except cv2.error:  # a number that no camera can have
            is_read = False
        if not is_read and self.is_camera:
            raise DataError(
                f"camera {source} cannot be opened or gives no image: is it plugged in, and free "
                "of other programs? Cameras are numbered from 0"
            )
        if not is_read:
            raise DataError(
                f"video {source} cannot be decoded: damaged, not a video, or of a kind that OpenCV "
                "cannot read (convert it to .mp4)"
            )
        fps, count = (self._capture.get(p) for p in (cv2.CAP_PROP_FPS, cv2.CAP_PROP_FRAME_COUNT))
        self.fps = fps if 0 < fps <= 1000 else USUAL_FPS
        self.count = int(count) if count > 0 and not self.is_camera else None

    def __enter__(self) -> "VideoReader":
        return self

    def __exit__(self, *error: object) -> None:
        self._capture.release()

    def __iter__(self) -> Iterator[np.ndarray]:
        is_read, frame = True, self._first
        while is_read:
            yield np.ascontiguousarray(frame[..., ::-1])  # OpenCV has blue first
            is_read, frame = self._capture.read()


class VideoWriter:
    """Writes RGB frames (H, W, 3) of one size to an .mp4 file (MPEG-4), playable after leaving.

    Its sides are even: odd ones get a row or a column of white. Raises DataError, OSError.
    """

    def __init__(self, path: Path, *, fps: float) -> None:
        _silence()
        self.path, self._fps = path, fps
        self._writer: cv2.VideoWriter | None = None
        path.parent.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> "VideoWriter":
        return self

    def __exit__(self, *error: object) -> None:
        if self._writer is not None:
            self._writer.release()
            with self.path.open("ab") as file:  # also finds a full disk, of which OpenCV is silent
                file.write(_MARK)

    def write(self, frame: np.ndarray) -> None:
        """Add a frame."""
        height, width = frame.shape[:2]
        padding = ((0, height % 2), (0, width % 2), (0, 0))
        frame = np.pad(frame[..., ::-1], padding, constant_values=255)
        if self._writer is None:  # the size is known from now on
            codec = cv2.VideoWriter.fourcc(*"mp4v")
            size = (frame.shape[1], frame.shape[0])
            self._writer = cv2.VideoWriter(str(self.path), codec, self._fps, size)
            if not self._writer.isOpened():
                self._writer = None
                raise DataError(
                    f"video {self.path} cannot be written: is the folder writable, and was OpenCV "
                    "built with FFmpeg (opencv-python-headless is)?"
                )
        self._writer.write(np.ascontiguousarray(frame))


def is_our_video(path: Path) -> bool:
    """Whether VideoWriter wrote a file."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - len(_MARK)))
        return file.read() == _MARK


def _silence() -> None:
    """Keep the decoders' own complaints off the console: ours say it in one sentence."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
