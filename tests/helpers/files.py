"""Writers of unusual image files, byte by byte if no library supports them."""

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

PNG_GRAY, PNG_PALETTE = 0, 3


def write_png(
    path: Path, ids: np.ndarray, bits: int, *, kind: int = PNG_GRAY, palette: Sequence[int] = ()
) -> Path:
    """Ids (H, W) as a gray or palette PNG of 1, 2, 4 or 8 bits."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    header = struct.pack(">IIBBBBB", ids.shape[1], ids.shape[0], bits, kind, 0, 0, 0)
    rows = b"".join(b"\0" + _packed(row, bits) for row in ids)
    colors = chunk(b"PLTE", bytes(palette)) if kind == PNG_PALETTE else b""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + colors
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )
    return path


def write_tiff(
    path: Path, pixels: np.ndarray, *, bits: int = 0, photometric: int = 1, pages: int = 1
) -> Path:
    """Pixels (H, W[, bands]) of any type as an uncompressed TIFF; photometric 0: white is zero."""
    height, width, *rest = pixels.shape
    bands, bits = (rest or [1])[0], bits or 8 * pixels.itemsize
    kind = {"u": 1, "i": 2, "f": 3}[pixels.dtype.kind]
    data = b"".join(_packed(row, bits) for row in pixels) if bits < 8 else pixels.tobytes()
    out = b"II*\0" + struct.pack("<I", 8)
    for page in range(pages):
        tags = [
            *((256, 4, [width]), (257, 4, [height]), (258, 3, [bits] * bands), (259, 3, [1])),
            *((262, 3, [photometric]), (273, 4, [0]), (277, 3, [bands]), (278, 4, [height])),
            *((279, 4, [len(data)]), (339, 3, [kind] * bands)),
        ]
        end = len(out) + 2 + 12 * len(tags) + 4
        entries, more = b"", b""
        size = 2 * 2 * bands * (bands > 2)  # of the values that do not fit into their entries
        for number, form, values in tags:
            packed = b"".join(struct.pack("<H" if form == 3 else "<I", v) for v in values)
            if number == 273:
                packed = struct.pack("<I", end + size)
            if len(packed) > 4:
                packed, more = struct.pack("<I", end + len(more)), more + packed
            entries += struct.pack("<HHI", number, form, len(values)) + packed.ljust(4, b"\0")
        after = end + size + len(data)
        out += struct.pack("<H", len(tags)) + entries
        out += struct.pack("<I", after if page + 1 < pages else 0) + more + data
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(out)
    return path


def write_turned(path: Path, pixels: np.ndarray, orientation: int) -> Path:
    """Pixels (H, W[, 3]) as PNG, JPEG or TIFF with an EXIF orientation."""
    image = Image.fromarray(pixels)
    exif = image.getexif()
    exif[0x0112] = orientation
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, exif=exif, quality=98)
    return path


def _packed(row: np.ndarray, bits: int) -> bytes:
    text = "".join(format(int(value), f"0{bits}b") for value in row)
    text += "0" * (-len(text) % 8)
    return bytes(int(text[i : i + 8], 2) for i in range(0, len(text), 8))
