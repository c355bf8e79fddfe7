"""Label files -> ids as they are stored: the one place that knows every encoding.

A label holds ids in one channel (gray, or the indices of a palette) or colours. Ids are read as
stored: Pillow would stretch those of 2 and 4 bits to 0..255. What may have changed ids (JPEG) or
can be read in two ways is refused.
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
    note_of,
    opened,
    orientation,
    raw_mode,
    stored_bits,
    upright,
)
from util.error import DataError

UPRIGHT = "upright"  # note of a label file: drawn on its image as shown, whatever the image's EXIF
_LOSSY = ("JPEG", "MPO", "JPEG2000", "AVIF")
_MODES = ("1", "L", "P", "LA", "I", "F", "RGB", "RGBA", "I;16", "I;16B", "I;16L", "I;16N")
_SAMPLE_FORMAT = 339  # TIFF tag
_AS_PNG = "save it again from its source as PNG"


@dataclass(frozen=True)
class Label:
    """What a label file holds and how: `raw` ids (H, W), or colours r*65536 + g*256 + b.

    `kind` is ids, palette or colors; `bits` are those of a stored id; `palette_rgb` holds R, G, B
    of each index; `turned` is the EXIF orientation that was applied, 0 where none is to be known.
    """

    path: Path
    raw: np.ndarray
    kind: str
    bits: int = 8
    palette_rgb: bytes = b""
    turned: int = 1

    @property
    def storage(self) -> tuple:
        """Equal for labels whose ids mean the same."""
        return self.kind, self.bits, self.palette_rgb

    @property
    def header(self) -> Header:
        """As of the decoded map."""
        height, width = self.raw.shape
        return Header(self.path, self.kind, height, width, self.turned)

    @cached_property
    def palette(self) -> dict[int, int]:
        """The colour of each index that occurs, {} of labels without a palette."""
        if self.kind != "palette":
            return {}
        rgb = np.frombuffer(self.palette_rgb.ljust(768, b"\0"), np.uint8).reshape(-1, 3)
        used = np.flatnonzero(np.bincount(self.raw.ravel()))
        return dict(zip(used.tolist(), pack_colors(rgb[used]).tolist(), strict=True))


def ids_of(label: Label) -> np.ndarray:
    """The ids of a label. Raises DataError where it holds colours."""
    if label.kind == "colors":
        raise DataError(
            f"label {label.path} is a colour image, and labels must have one channel that holds "
            "class ids: save ids, or name a file of `R G B` lines, one per class, in DATA.label_map"
        )
    return label.raw


def decode_label(path: Path, *, as_colors: bool = False) -> Label:
    """A label file, upright; colours of a colour image, and of all with `as_colors`.

    Raises DataError for a file that cannot be decoded, or not in one certain way.
    """
    with opened(path, "label") as file:
        _check_coding(file, path)
        check_sums(file, path, "label")
        bits = stored_bits(file)  # before EXIF data are read, which decodes a PNG file
        turned = 0 if note_of(file) == UPRIGHT else orientation(file)
        if as_colors and file.mode[0] in "IF":
            raise CodingError(
                f"label {path} holds ids (mode {file.mode}), but DATA.label_map names colours: "
                "name ids there"
            )
        file.info.pop("transparency", None)  # of a palette; else Pillow would warn
        pixels, palette = _opaque(_stored(file), path), b""
        if as_colors:
            raw, kind = pack_colors(np.array(file.convert("RGB"))), "colors"
        elif file.mode == "P":
            raw, kind, palette = pixels, "palette", bytes(file.getpalette("RGB") or b"")
        elif pixels.ndim == 3 and (pixels != pixels[..., :1]).any():
            raw, kind = pack_colors(pixels), "colors"
        else:  # one channel, or gray saved as RGB
            raw, kind = _ids(pixels if pixels.ndim == 2 else pixels[..., 0], bits, path), "ids"
        raw = upright(raw, orientation(file))  # of TIFF files Pillow has turned the pixels already
        return Label(path, raw, kind, bits, palette, turned)


def count_ids(label: np.ndarray) -> dict[int, int]:
    """Id -> pixels."""
    if label.min(initial=0) >= 0 and label.max(initial=0) < 2**16:
        counts = np.bincount(label.ravel())
        ids = np.flatnonzero(counts)
        counts = counts[ids]
    else:
        ids, counts = np.unique(label, return_counts=True)
    return dict(zip(ids.tolist(), counts.tolist(), strict=True))


def pack_colors(rgb: np.ndarray) -> np.ndarray:
    """RGB (..., 3) uint8 -> r*65536 + g*256 + b (...) int32."""
    red, green, blue = np.moveaxis(rgb.astype(np.int32), -1, 0)
    return red << 16 | green << 8 | blue


def _check_coding(file: Image.Image, path: Path) -> None:
    """Refuse files whose ids may have changed, or may mean two things."""
    compression, mode = str(file.info.get("compression", "")), file.mode
    is_lossy = file.format in _LOSSY or compression in ("jpeg", "webp")
    if file.format == "WEBP":
        with path.open("rb") as stream:
            is_lossy = b"VP8L" not in stream.read(4096)
    if is_lossy:
        kind = "JPEG" if compression == "jpeg" else file.format
        raise CodingError(
            f"label {path} is compressed with loss ({kind}), which changes ids: {_AS_PNG}"
        )
    if mode not in _MODES or (mode.startswith("RGB") and stored_bits(file) > 8):
        bits = f"{stored_bits(file)} bits"
        raise CodingError(
            f"label {path} has channels of {bits} (mode {mode}): save ids in one channel of 8 or "
            "16 bits, or colours in three of 8 bits"
        )
    if re.search(r";\d*I", raw_mode(file)) and file.format in ("TIFF", "PPM"):
        raise CodingError(
            f"label {path} is stored inverted (0 is white), and whether its ids are too is not "
            f"known: {_AS_PNG}"
        )
    tile = getattr(file, "tile", None)
    if file.format == "PPM" and tile and tile[0][0] != "raw" and tile[0][3][-1] != 255:
        largest = tile[0][3][-1]
        raise CodingError(
            f"label {path} is a PGM file of values 0..{largest}, which decoders stretch to 0..255: "
            f"{_AS_PNG}"
        )


def _stored(file: Image.Image) -> np.ndarray:
    """The pixels of a file. Pillow shows signed ids of 8 bits as unsigned ones, -1 as 255."""
    pixels = np.array(file)
    is_signed = getattr(file, "tag_v2", {}).get(_SAMPLE_FORMAT) == (2,)
    return pixels.view(np.int8) if is_signed and pixels.dtype == np.uint8 else pixels


def _opaque(pixels: np.ndarray, path: Path) -> np.ndarray:
    """Pixels (H, W[, C]) without their alpha channel, which must be 255 everywhere."""
    if pixels.ndim == 2 or pixels.shape[2] == 3:
        return pixels
    hidden = int((pixels[..., -1] != 255).sum())
    if hidden:
        raise CodingError(
            f"label {path} has {hidden} transparent pixels, and whether their ids count is not "
            "known: save it without an alpha channel"
        )
    return pixels[..., 0] if pixels.shape[2] == 2 else pixels[..., :3]


def _ids(pixels: np.ndarray, bits: int, path: Path) -> np.ndarray:
    """One channel (H, W) of any type as ids, uint8 or int32."""
    if pixels.dtype.kind == "f":  # as GIS programs write classes
        with np.errstate(invalid="ignore"):  # NaN and infinity differ from what they round to
            wrong = pixels[pixels != pixels.astype(np.int32)]
        if wrong.size:
            raise CodingError(
                f"label {path} holds {wrong[0]:g} ({wrong.size} such pixels), and ids are whole "
                "numbers: save it again with integers"
            )
    if bits in (2, 4) and pixels.dtype == np.uint8:  # Pillow stretched them to 0..255
        return pixels // (255 // (2**bits - 1))
    return pixels if pixels.dtype == np.uint8 else pixels.astype(np.int32)
