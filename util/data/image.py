"""Read and write image and label files."""

from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from util.data.file import (
    NOTE,
    CodingError,
    Header,
    check_sums,
    exif_orientation,
    note_of,
    open_image,
    replacing,
    stored_bits,
    upright,
)
from util.data.label import decode_label, ids_of

try:
    import simplejpeg
except ImportError:
    simplejpeg = None

IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff"),
    *(".pgm", ".ppm"),
)


def read_image(path: Path) -> np.ndarray:
    """Read an image as upright RGB (H, W, 3) uint8. Raises DataError."""
    return decode_image(path)[0]


def decode_image(path: Path) -> tuple[np.ndarray, Header]:
    """Return an image as `read_image` does, with its header.

    Alpha is dropped: stored colours count even where they are transparent.
    """
    with open_image(path, "image") as file:
        if file.mode[0] in "IF" or stored_bits(file) > 8:
            raise CodingError(
                f"image {path} has 16 or more bits per channel (mode {file.mode}), so its white "
                "level is unknown: save it with 8 bits"
            )
        check_sums(file, path, "image")
        orientation = exif_orientation(file)
        if (rgb := _decode_jpeg(file)) is None:
            file.info.pop("transparency", None)
            rgb = np.array(file.convert("RGB"))
        rgb = upright(rgb, exif_orientation(file))
        return rgb, Header(path, "RGB", rgb.shape[0], rgb.shape[1], orientation)


def _decode_jpeg(file: Image.Image) -> np.ndarray | None:
    """Decode an intact colour JPEG with simplejpeg, if installed; None for any other file.

    The pixels are the same as Pillow's, in two thirds of the time.
    """
    source = getattr(file, "fp", None)
    if simplejpeg is None or source is None or (file.format, file.mode) != ("JPEG", "RGB"):
        return None
    source.seek(0)
    try:
        return simplejpeg.decode_jpeg(source.read())
    except ValueError:  # damaged, or not quite a JPEG: Pillow decides
        return None


def read_label(path: Path, *, as_colors: bool = False) -> np.ndarray:
    """Read a label as ids (H, W), uint8 or int32; palette files give indices. Raises DataError.

    With `as_colors`, any file gives its visible colours as ids r*65536 + g*256 + b.
    """
    label = decode_label(path, as_colors=as_colors)
    return label.raw if as_colors else ids_of(label)


def write_label(path: Path, label: np.ndarray, *, note: str = "") -> None:
    """Write ids (H, W) as a one-channel PNG of 8 bits, or of 16 bits if an id exceeds 255."""
    kind = np.uint8 if label.max(initial=0) <= 255 else np.uint16
    write_image(path, label.astype(kind), note=note)


def write_image(path: Path, image: np.ndarray, *, note: str = "") -> None:
    """Write an image as PNG atomically, creating folders as needed. Raises OSError.

    `note` is a text to store in the file, for `read_note`.
    """
    text = PngInfo()
    if note:
        text.add_text(NOTE, note)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        Image.fromarray(image).save(temporary, format="PNG", compress_level=1, pnginfo=text)


def read_note(path: Path) -> str:
    """Read the note that `write_image` stored, '' if there is none. Raises DataError."""
    with open_image(path, "image") as file:
        return note_of(file)
