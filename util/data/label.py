"""Decode label files to the ids as stored: the only place that knows all encodings.

A label holds ids in one channel (grayscale or palette indices), or colours. Ids are read as stored:
Pillow would stretch 2- and 4-bit ids to 0..255. Files that are ambiguous, or whose encoding (JPEG)
may have changed ids, are refused.
"""

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from util.data.file import (
    CodingError,
    Header,
    check_sums,
    exif_orientation,
    note_of,
    open_image,
    raw_mode,
    stored_bits,
    upright,
)
from util.error import DataError

UPRIGHT = "upright"  # note of a label file: matches the upright image, whatever its EXIF
_LOSSY = ("JPEG", "MPO", "JPEG2000", "AVIF")
_MODES = ("1", "L", "P", "LA", "I", "F", "RGB", "RGBA", "I;16", "I;16B", "I;16L", "I;16N")
_SAMPLE_FORMAT = 339  # TIFF tag
_AS_PNG = "save it again from its source as PNG"


@dataclass(frozen=True)
class Label:
    """A decoded label, upright: `raw` holds ids, or colours r*65536 + g*256 + b, (H, W).

    `kind` is ids, palette or colors; `bits` is the number of bits per stored id; `palette_rgb`
    holds R, G, B of each index; `orientation` is the file's EXIF orientation, 0 with note UPRIGHT.
    """

    path: Path
    raw: np.ndarray
    kind: str
    bits: int = 8
    palette_rgb: bytes = b""
    orientation: int = 1

    @property
    def storage(self) -> tuple:
        """How ids are stored; equal for labels whose ids have the same meaning."""
        return self.kind, self.bits, self.palette_rgb

    @property
    def header(self) -> Header:
        """The header of the decoded label."""
        height, width = self.raw.shape
        return Header(self.path, self.kind, height, width, self.orientation)

    @cached_property
    def palette(self) -> dict[int, int]:
        """The colour of each index that occurs; {} without a palette."""
        if self.kind != "palette":
            return {}
        rgb = np.frombuffer(self.palette_rgb.ljust(768, b"\0"), np.uint8).reshape(-1, 3)
        used = np.flatnonzero(np.bincount(self.raw.ravel()))
        return dict(zip(used.tolist(), pack_colors(rgb[used]).tolist(), strict=True))


def ids_of(label: Label) -> np.ndarray:
    """Return the ids of a label. Raises DataError if it holds colours."""
    if label.kind == "colors":
        raise DataError(
            f"label {label.path} is a colour image, but labels must hold class ids in one channel: "
            "save ids, or set DATA.label_map to a file with an `R G B` line per class"
        )
    return label.raw


def decode_label(path: Path, *, as_colors: bool = False) -> Label:
    """Decode a label file, upright; with `as_colors`, any file to its visible colours.

    Raises DataError for a file that cannot be decoded or is ambiguous.
    """
    with open_image(path, "label") as file:
        _check_coding(file, path)
        check_sums(file, path, "label")
        bits = stored_bits(file)  # before reading EXIF data, which decodes PNG files
        orientation = 0 if note_of(file) == UPRIGHT else exif_orientation(file)
        if as_colors and file.mode[0] in "IF":
            raise CodingError(
                f"label {path} holds ids (mode {file.mode}), but DATA.label_map lists colours: "
                "list ids instead"
            )
        file.info.pop("transparency", None)  # of a palette: Pillow would warn
        pixels, palette = _opaque(_stored(file), path), b""
        if as_colors:
            raw, kind = pack_colors(np.array(file.convert("RGB"))), "colors"
        elif file.mode == "P":
            raw, kind, palette = pixels, "palette", bytes(file.getpalette("RGB") or b"")
        elif pixels.ndim == 3 and (pixels != pixels[..., :1]).any():
            raw, kind = pack_colors(pixels), "colors"
        else:  # one channel, or grayscale saved as RGB
            raw, kind = _ids(pixels if pixels.ndim == 2 else pixels[..., 0], bits, path), "ids"
        raw = upright(raw, exif_orientation(file))  # 1 for TIFF files: Pillow has turned them
        return Label(path, raw, kind, bits, palette, orientation)


def count_ids(label: np.ndarray) -> dict[int, int]:
    """Return {id: number of pixels}."""
    if label.min(initial=0) >= 0 and label.max(initial=0) < 2**16:
        counts = np.bincount(label.ravel())
        ids = np.flatnonzero(counts)
        counts = counts[ids]
    else:
        ids, counts = np.unique(label, return_counts=True)
    return dict(zip(ids.tolist(), counts.tolist(), strict=True))


def pack_colors(rgb: np.ndarray) -> np.ndarray:
    """Pack colours: RGB (..., 3) uint8 -> r*65536 + g*256 + b (...) int32."""
    red, green, blue = np.moveaxis(rgb.astype(np.int32), -1, 0)
    return red << 16 | green << 8 | blue


def _check_coding(file: Image.Image, path: Path) -> None:
    """Raise CodingError if ids may have changed or are ambiguous."""
    compression, mode = str(file.info.get("compression", "")), file.mode
    is_lossy = file.format in _LOSSY or compression in ("jpeg", "webp")
    if file.format == "WEBP":
        with path.open("rb") as stream:
            is_lossy = b"VP8L" not in stream.read(4096)
    if is_lossy:
        kind = "JPEG" if compression == "jpeg" else file.format
        raise CodingError(
            f"label {path} uses lossy compression ({kind}), which changes ids: {_AS_PNG}"
        )
    if mode not in _MODES or (mode.startswith("RGB") and stored_bits(file) > 8):
        bits = f"{stored_bits(file)} bits"
        raise CodingError(
            f"label {path} has channels of {bits} (mode {mode}): save ids in one channel of 8 or "
            "16 bits, or colours in three channels of 8 bits"
        )
    if re.search(r";\d*I", raw_mode(file)) and file.format in ("TIFF", "PPM"):
        raise CodingError(
            f"label {path} is stored inverted (0 is white), so it is unclear whether its ids "
            f"are inverted, too: {_AS_PNG}"
        )
    tile = getattr(file, "tile", None)
    if file.format == "PPM" and tile and tile[0][0] != "raw" and tile[0][3][-1] != 255:
        largest = tile[0][3][-1]
        raise CodingError(
            f"label {path} is a PGM file with values 0..{largest}, which decoders stretch to "
            f"0..255: {_AS_PNG}"
        )


def _stored(file: Image.Image) -> np.ndarray:
    """Return the stored pixels. Pillow reads signed 8-bit ids as unsigned, -1 as 255."""
    pixels = np.array(file)
    is_signed = getattr(file, "tag_v2", {}).get(_SAMPLE_FORMAT) == (2,)
    return pixels.view(np.int8) if is_signed and pixels.dtype == np.uint8 else pixels


def _opaque(pixels: np.ndarray, path: Path) -> np.ndarray:
    """Drop the alpha channel of pixels (H, W[, C]), which must be 255 everywhere."""
    if pixels.ndim == 2 or pixels.shape[2] == 3:
        return pixels
    hidden = int((pixels[..., -1] != 255).sum())
    if hidden:
        raise CodingError(
            f"label {path} has {hidden} transparent pixels, so it is unclear whether their ids "
            "count: save it without an alpha channel"
        )
    return pixels[..., 0] if pixels.shape[2] == 2 else pixels[..., :3]


def _ids(pixels: np.ndarray, bits: int, path: Path) -> np.ndarray:
    """Convert one channel (H, W) of any type to ids, uint8 or int32."""
    if pixels.dtype.kind == "f":  # written by GIS programs
        with np.errstate(invalid="ignore"):  # casting NaN and infinity
            wrong = pixels[pixels != pixels.astype(np.int32)]
        if wrong.size:
            raise CodingError(
                f"label {path} holds {wrong[0]:g} ({wrong.size} such pixels), but ids are "
                "integers: save it again with an integer type"
            )
    if bits in (2, 4) and pixels.dtype == np.uint8:  # Pillow stretched them to 0..255
        return pixels // (255 // (2**bits - 1))
    return pixels if pixels.dtype == np.uint8 else pixels.astype(np.int32)
