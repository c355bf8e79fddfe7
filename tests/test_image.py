"""Images: 8 bits per channel, as stored."""

import struct
from pathlib import Path

import cv2
import numpy as np
import pytest

from util.data.image import read_image
from util.error import DataError


@pytest.mark.parametrize("kind", ["I;16", "RGB"])
def test_images_of_16_bits_are_refused_not_darkened(tmp_path: Path, kind: str) -> None:
    pixels = np.arange(4, dtype=np.uint16).reshape(2, 2) * 256
    cv2.imwrite(str(tmp_path / "x.png"), np.dstack([pixels] * 3) if kind == "RGB" else pixels)
    with pytest.raises(DataError, match=r"has 16 or more bits per channel .* save it with 8 bits"):
        read_image(tmp_path / "x.png")


def test_a_bmp_of_16_bits_a_pixel_has_8_per_channel(tmp_path: Path) -> None:
    """5 bits of each colour, stretched to 8."""
    header = struct.pack("<2sIHHI", b"BM", 62, 0, 0, 54)
    header += struct.pack("<IiiHHIIiiII", 40, 4, 1, 1, 16, 0, 8, 0, 0, 0, 0)
    pixels = struct.pack("<4H", 0, 31, 31 << 5, 31 << 10)
    (tmp_path / "x.bmp").write_bytes(header + pixels)
    found = read_image(tmp_path / "x.bmp")[0].tolist()
    assert found == [[0, 0, 0], [0, 0, 255], [0, 255, 0], [255, 0, 0]]
