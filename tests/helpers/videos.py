"""Videos written for the tests."""

from pathlib import Path

import cv2
import numpy as np


def write_video(path: Path, codec: str, frames: list[np.ndarray]) -> Path:
    size = frames[0].shape[1::-1]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), 12.5, size)
    for frame in frames:
        writer.write(np.ascontiguousarray(frame[..., ::-1]))
    writer.release()
    return path
