"""Reading frames from video files and cameras, and writing video files, with OpenCV."""

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
USUAL_FPS = 25.0  # if the source does not report a valid rate
_MARK = b"\0\0\0\x18freemade with semseg"  # an MP4 box at the end of our files; players skip it


class VideoReader:
    """Reads upright RGB frames (H, W, 3), uint8, from a file or from a camera, given by number.

    `name` is the base name for results, `count` the number of frames a file claims to hold (None
    if unknown), `fps` the frames per second. Use it in a `with` block, which releases the camera.
    Raises DataError.
    """

    def __init__(self, source: Path | int) -> None:
        _silence()
        self.is_camera = isinstance(source, int)
        # Each recording from a camera gets its own name.
        self.name = f"camera{source}_{datetime.now():%Y%m%d_%H%M%S}"
        if isinstance(source, Path):
            self.name = source.stem
        try:
            self._capture = cv2.VideoCapture(source if isinstance(source, int) else str(source))
            is_read, self._first = self._capture.read()
        except cv2.error:  # an impossible camera number
            is_read = False
        if not is_read and self.is_camera:
            raise DataError(
                f"camera {source} cannot be opened or gives no image: check its number (from 0), "
                "that it is connected and that no other program uses it"
            )
        if not is_read:
            raise DataError(
                f"video {source} cannot be decoded: it is damaged, not a video or in a format that "
                "OpenCV does not support (convert it to .mp4)"
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
            yield np.ascontiguousarray(frame[..., ::-1])  # OpenCV's order is BGR
            is_read, frame = self._capture.read()


class VideoWriter:
    """Writes RGB frames (H, W, 3) of equal size to an .mp4 file (MPEG-4), complete on exit.

    Odd sides are made even by a white row or column. Raises DataError, OSError.
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
            with self.path.open("ab") as file:  # also detects a full disk; OpenCV does not
                file.write(_MARK)

    def write(self, frame: np.ndarray) -> None:
        """Append a frame."""
        height, width = frame.shape[:2]
        padding = ((0, height % 2), (0, width % 2), (0, 0))
        frame = np.pad(frame[..., ::-1], padding, constant_values=255)
        if self._writer is None:  # the first frame determines the size
            codec = cv2.VideoWriter.fourcc(*"mp4v")
            size = (frame.shape[1], frame.shape[0])
            self._writer = cv2.VideoWriter(str(self.path), codec, self._fps, size)
            if not self._writer.isOpened():
                self._writer = None
                raise DataError(
                    f"video {self.path} cannot be written: check that the folder is writable and "
                    "that OpenCV was built with FFmpeg (opencv-python-headless is)"
                )
        self._writer.write(np.ascontiguousarray(frame))


def is_our_video(path: Path) -> bool:
    """Whether VideoWriter wrote the file."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - len(_MARK)))
        return file.read() == _MARK


def _silence() -> None:
    """Silence the decoders' own messages; errors are reported in one sentence instead."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
