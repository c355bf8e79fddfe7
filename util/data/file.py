"""Open image files, reporting every failure in one sentence, and write files atomically."""

import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from uuid import uuid4

import numpy as np
from PIL import Image

from util.data.file_kind import head_of, kind_of, tiff_bands
from util.error import DataError, UserError

MAX_PIXELS = 2**30  # per file: 3 GiB once decoded
ORIENTATION = 0x0112  # EXIF tag
NOTE = "semseg"  # keyword of our text chunk in PNG files
_UPRIGHT = {  # EXIF orientation -> upright view of a stored array (H, W, ...)
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}
Image.MAX_IMAGE_PIXELS = None  # `open_image` enforces MAX_PIXELS with a clearer message


class CodingError(DataError):
    """An intact file whose encoding is not supported or ambiguous."""


@dataclass(frozen=True)
class Header:
    """What is known before decoding: Pillow's mode, the upright size and the EXIF orientation.

    Orientation 1 means none.
    """

    path: Path
    mode: str
    height: int
    width: int
    orientation: int


def read_header(path: Path, what: str = "image") -> Header:
    """Read the header of a file. Raises DataError."""
    with open_image(path, what) as file:
        (width, height), orientation = file.size, exif_orientation(file)
        if file.format != "TIFF" and orientation >= 5:  # Pillow already swaps TIFF sides
            width, height = height, width
        return Header(path, file.mode, height, width, orientation)


@contextmanager
def open_image(path: Path, what: str) -> Iterator[Image.Image]:
    """Open a file with Pillow. Any failure in the `with` block raises DataError."""
    try:
        # Given a path, Pillow would map raw TIFF files into memory with the sides of the upright
        # image, which scrambles those stored on their side.
        with path.open("rb") as stream, Image.open(stream) as file:
            if file.width * file.height > MAX_PIXELS:
                raise DataError(
                    f"{what} {path} has {file.width}x{file.height} pixels, more than the "
                    f"{MAX_PIXELS} that can be decoded: cut it into tiles"
                )
            _check_frames(file, path, what)
            yield file
    except UserError:
        raise
    except Exception as error:  # decoders raise nearly everything
        raise DataError(_complaint(path, what, error)) from None


def check_sums(file: Image.Image, path: Path, what: str) -> None:
    """Raise DataError if a PNG file is truncated or a checksum is wrong.

    Pillow does not verify the checksums of pixel data, so pixels would change silently.
    """
    if file.format != "PNG":
        return
    content, start, kind = path.read_bytes(), 8, b""
    while kind != b"IEND" and start + 12 <= len(content):
        kind = content[start + 4 : start + 8]
        end = start + 8 + int.from_bytes(content[start : start + 4], "big")
        if end + 4 > len(content):  # Pillow would read across chunks
            raise DataError(f"{what} {path} cannot be decoded: damaged (truncated); copy it again")
        if zlib.crc32(content[start + 4 : end]) != int.from_bytes(content[end : end + 4], "big"):
            raise DataError(
                f"{what} {path} cannot be decoded: damaged (a checksum is wrong); copy it again"
            )
        start = end + 4


def exif_orientation(file: Image.Image) -> int:
    """Return the EXIF orientation 1..8 still to be applied; 1 if missing or unreadable."""
    try:
        value = file.getexif().get(ORIENTATION, 1)
        return int(value) if value in _UPRIGHT else 1
    except Exception:  # malformed EXIF: viewers show the pixels as stored
        return 1


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Turn stored pixels (H, W, ...) upright, according to their EXIF orientation."""
    if orientation not in _UPRIGHT:
        return pixels
    return np.ascontiguousarray(_UPRIGHT[orientation](pixels))


def raw_mode(file: Image.Image) -> str:
    """Return the sample layout of an opened, undecoded file, such as `L;4` or `RGB;16B`."""
    tile = getattr(file, "tile", None)
    layout = tile[0][3] if tile else ""
    layout = layout[0] if isinstance(layout, tuple) and layout else layout
    return layout if isinstance(layout, str) else ""


def stored_bits(file: Image.Image) -> int:
    """Return the bits per sample: 1, 2, 4, 8, 16 or 32."""
    if file.mode == "1":
        return 1
    if raw_mode(file).startswith("BGR;1"):  # a BMP of 16 bits a pixel, 5 or 6 of each colour
        return 8
    bits = re.search(r";(\d+)", raw_mode(file))
    return int(bits[1]) if bits else 32 if file.mode in "IF" else 8


def _check_frames(file: Image.Image, path: Path, what: str) -> None:
    """Raise CodingError for animations and stacks: only their first frame would be read."""
    count = getattr(file, "n_frames", 1)
    if count > 1 and file.format == "TIFF":  # thumbnails and masks of the first page are fine
        file.seek(1)
        count = 1 if getattr(file, "tag_v2", {}).get(254, 0) & 0b101 else count
        file.seek(0)
    if count > 1 and file.format in ("TIFF", "GIF", "WEBP", "PNG", "AVIF"):
        raise CodingError(
            f"{what} {path} holds {count} frames: save the one to use as a separate file"
        )


def _complaint(path: Path, what: str, error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return f"no {what} {path}"
    if isinstance(error, MemoryError):
        return f"{what} {path} does not fit into memory: cut it into tiles"
    if isinstance(error, OSError) and error.errno is not None:
        return f"{what} {path} cannot be read: {error.strerror}"
    head = head_of(path)
    if kind := kind_of(head):
        return f"{what} {path} is {kind}"
    is_unknown = isinstance(error, Image.UnidentifiedImageError)
    if is_unknown and head[:2] in (b"II", b"MM") and (bands := tiff_bands(path)):
        wanted = "one band of integers" if what == "label" else "three bands (RGB) of 8 bits"
        return f"{what} {path} is a TIFF file with {bands}, which is not supported: save {wanted}"
    reason = "" if is_unknown else f" ({error})"
    return f"{what} {path} cannot be decoded: damaged or not an image{reason}"


def note_of(file: Image.Image) -> str:
    """Return the note in an opened file, '' if there is none."""
    return str(file.info.get(NOTE, ""))


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to; the file then replaces `path`, unless an error occurs."""
    with unfinished(path) as temporary:
        try:
            yield temporary
            temporary.replace(path)
        except OSError as error:
            error.filename = error.filename or str(path)  # missing if the disk is full
            raise


@contextmanager
def unfinished(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; a file left there is removed at the end."""
    # Unique across processes and machines, and short, since the name of `path` may be long.
    temporary = path.with_name(f".{uuid4().hex}.part")
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically, creating folders as needed. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def file_sha256(path: str | Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    digest = sha256()
    with Path(path).open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()
