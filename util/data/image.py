"""Image and label files -> arrays and back."""

from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from util.data.file import (
    NOTE,
    CodingError,
    Header,
    check_sums,
    note_of,
    opened,
    orientation,
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
    """An image as RGB (H, W, 3) uint8, upright. Raises DataError."""
    return decode_image(path)[0]


def decode_image(path: Path) -> tuple[np.ndarray, Header]:
    """An image as `read_image` gives it, and the header that fits it.

    Alpha is dropped: the stored colours count, also where they are transparent.
    """
    with opened(path, "image") as file:
        if file.mode[0] in "IF" or stored_bits(file) > 8:
            raise CodingError(
                f"image {path} has 16 or more bits a channel (mode {file.mode}), and which of its "
                "values is white is not known: save it with 8 bits"
            )
        check_sums(file, path, "image")
        turned = orientation(file)
        if (rgb := _decode_jpeg(file)) is None:
            file.info.pop("transparency", None)
            rgb = np.array(file.convert("RGB"))
        rgb = upright(rgb, orientation(file))
        return rgb, Header(path, "RGB", rgb.shape[0], rgb.shape[1], turned)


def _decode_jpeg(file: Image.Image) -> np.ndarray | None:
    """An undamaged colour JPEG by simplejpeg, where that is installed: the same pixels as Pillow's
    in two thirds of the time. None for any other file."""
    source = getattr(file, "fp", None)
    if simplejpeg is None or source is None or (file.format, file.mode) != ("JPEG", "RGB"):
        return None
    source.seek(0)
    try:
        return simplejpeg.decode_jpeg(source.read())
    except ValueError:  # damaged, or not quite a JPEG: Pillow decides
        return None


def read_label(path: Path, *, as_colors: bool = False) -> np.ndarray:
    """A label map as ids (H, W), uint8 or int32; palette files give indices. Raises DataError.

    `as_colors`: what the file shows, as ids r*65536 + g*256 + b; colour images are fine then.
    """
    label = decode_label(path, as_colors=as_colors)
    return label.raw if as_colors else ids_of(label)


def write_label(path: Path, label: np.ndarray, *, note: str = "") -> None:
    """Ids (H, W) as a PNG of one channel: 8 bit, or 16 bit where an id is above 255."""
    kind = np.uint8 if label.max(initial=0) <= 255 else np.uint16
    write_image(path, label.astype(kind), note=note)


def write_image(path: Path, image: np.ndarray, *, note: str = "") -> None:
    """An image as PNG, complete or not at all; folders are made as needed. Raises OSError.

    `note`: a text that goes into the file, for `read_note`.
    """
    text = PngInfo()
    if note:
        text.add_text(NOTE, note)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        Image.fromarray(image).save(temporary, format="PNG", compress_level=1, pnginfo=text)


def read_note(path: Path) -> str:
    """The note that `write_image` put into a file, '' where there is none. Raises DataError."""
    with opened(path, "image") as file:
        return note_of(file)
