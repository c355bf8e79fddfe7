"""How image files are opened, where all that can be wrong is a sentence; how files are written."""

import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from util.error import DataError, UserError

MAX_PIXELS = 2**30  # of one file: 3 GiB once decoded
ORIENTATION = 0x0112  # EXIF tag
NOTE = "semseg"  # keyword of our text in PNG files
_UPRIGHT = {  # EXIF orientation -> the view of a stored array (H, W, ...) that is to be shown
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}
_NOT_IMAGES = (  # how a file begins -> what it is
    (rb"version https://git-lfs", "a git-lfs pointer, not the image: run `git lfs pull`"),
    (rb"\s*<(!doctype|html)", "a web page, not an image: download it again"),
    (rb"\s*<(\?xml|svg)", "a vector drawing or XML, not an image: save it as PNG"),
    (rb"PK\x03\x04", "a ZIP file, not an image: unpack it"),
    (rb"%PDF", "a PDF file: save it as PNG"),
    (rb"....ftyp(heic|heix|mif1|hevc)", "a HEIC file, which cannot be read here: save it as JPEG"),
)
Image.MAX_IMAGE_PIXELS = None  # `opened` has a limit of its own, and a sentence for it


class CodingError(DataError):
    """A whole file that is stored in a way that cannot be read for certain."""


@dataclass(frozen=True)
class Header:
    """What a file says before it is decoded: Pillow's mode, height and width as shown, and the EXIF
    orientation (1: none)."""

    path: Path
    mode: str
    height: int
    width: int
    turned: int


def read_header(path: Path, what: str = "image") -> Header:
    """The header of a file. Raises DataError."""
    with opened(path, what) as file:
        (width, height), turned = file.size, orientation(file)
        if file.format != "TIFF" and turned >= 5:  # of TIFF files Pillow knows it
            width, height = height, width
        return Header(path, file.mode, height, width, turned)


@contextmanager
def opened(path: Path, what: str) -> Iterator[Image.Image]:
    """A file as Pillow opens it. All that goes wrong with it in the `with` block is a DataError."""
    try:
        with Image.open(path) as file:
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
    """Raise DataError if the bytes of a PNG file have changed.

    Pillow does not verify the checksums of pixel data, so pixels would change silently.
    """
    if file.format != "PNG":
        return
    content, place, kind = path.read_bytes(), 8, b""
    while kind != b"IEND" and place + 12 <= len(content):
        kind = content[place + 4 : place + 8]
        end = place + 8 + int.from_bytes(content[place : place + 4], "big")
        if end + 4 > len(content):  # Pillow would read on across the borders of chunks
            raise DataError(f"{what} {path} cannot be decoded: damaged (truncated); copy it again")
        if zlib.crc32(content[place + 4 : end]) != int.from_bytes(content[end : end + 4], "big"):
            raise DataError(
                f"{what} {path} cannot be decoded: damaged (a checksum is wrong); copy it again"
            )
        place = end + 4


def orientation(file: Image.Image) -> int:
    """The EXIF orientation 1..8 that is still to be applied; 1 where the tag cannot be read."""
    try:
        value = file.getexif().get(ORIENTATION, 1)
        return int(value) if value in _UPRIGHT else 1
    except Exception:  # malformed EXIF: viewers show the pixels as they are stored
        return 1


def upright(pixels: np.ndarray, turned: int) -> np.ndarray:
    """Stored pixels (H, W, ...) as an EXIF orientation says they are to be shown."""
    return np.ascontiguousarray(_UPRIGHT[turned](pixels)) if turned in _UPRIGHT else pixels


def raw_mode(file: Image.Image) -> str:
    """How samples lie in a file that is open but not decoded, such as `L;4` or `RGB;16B`."""
    tile = getattr(file, "tile", None)
    layout = tile[0][3] if tile else ""
    layout = layout[0] if isinstance(layout, tuple) and layout else layout
    return layout if isinstance(layout, str) else ""


def stored_bits(file: Image.Image) -> int:
    """Bits a sample: 1, 2, 4, 8, 16 or 32."""
    if file.mode == "1":
        return 1
    bits = re.search(r";(\d+)", raw_mode(file))
    return int(bits[1]) if bits else 32 if file.mode in "IF" else 8


def _check_frames(file: Image.Image, path: Path, what: str) -> None:
    """Refuse animations and stacks, of which only the first frame would be read."""
    count = getattr(file, "n_frames", 1)
    if count > 1 and file.format == "TIFF":  # smaller copies and masks of the first page are fine
        file.seek(1)
        count = 1 if getattr(file, "tag_v2", {}).get(254, 0) & 0b101 else count
        file.seek(0)
    if count > 1 and file.format in ("TIFF", "GIF", "WEBP", "PNG", "AVIF"):
        raise CodingError(
            f"{what} {path} holds {count} frames: save the one you mean as its own file"
        )


def _complaint(path: Path, what: str, error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return f"no {what} {path}"
    if isinstance(error, MemoryError):
        return f"{what} {path} does not fit into memory: cut it into tiles"
    if isinstance(error, OSError) and error.errno is not None:
        return f"{what} {path} cannot be read: {error.strerror}"
    with path.open("rb") as file:
        head = file.read(256)
    for start, kind in _NOT_IMAGES:
        if re.match(start, head, re.IGNORECASE | re.DOTALL):
            return f"{what} {path} is {kind}"
    bands = _tiff_bands(path) if head[:2] in (b"II", b"MM") else ""
    if bands:
        wanted = "one band of integers" if what == "label" else "three bands (RGB) of 8 bits"
        return f"{what} {path} is a TIFF file with {bands}, which cannot be read: save {wanted}"
    reason = "" if isinstance(error, Image.UnidentifiedImageError) else f" ({error})"
    return f"{what} {path} cannot be decoded: damaged or not an image{reason}"


def _tiff_bands(path: Path) -> str:
    """`5 bands of 16 bits` of a TIFF file that Pillow could not identify, '' for no such thing."""
    try:
        with path.open("rb") as file:
            directory = ImageFileDirectory_v2(file.read(8))
            file.seek(directory.next)
            directory.load(file)
        bits = directory.get(258, (1,))
        return f"{directory.get(277, 1)} bands of {bits[0] if type(bits) is tuple else bits} bits"
    except Exception:
        return ""


def note_of(file: Image.Image) -> str:
    """The note of an open file, '' where there is none."""
    return str(file.info.get(NOTE, ""))


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to; what is there at the end becomes `path`, or nothing on an error."""
    with unfinished(path) as temporary:
        try:
            yield temporary
            temporary.replace(path)
        except OSError as error:
            error.filename = error.filename or str(path)  # of a full disk Python does not say it
            raise


@contextmanager
def unfinished(path: Path) -> Iterator[Path]:
    """A path beside `path` for a file that is removed in the end."""
    # A name that no other process or machine takes, and a short one: `path` may have a long one.
    temporary = path.with_name(f".{uuid4().hex}.part")
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """A text file in UTF-8, whole or not at all; folders are made as needed. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")
