"""What a file is that cannot be decoded as an image, by its first bytes."""

import re
from pathlib import Path

from PIL.TiffImagePlugin import ImageFileDirectory_v2

_NOT_IMAGES = (  # (start of a file, what it is)
    (rb"version https://git-lfs", "a Git LFS pointer, not the image: run `git lfs pull`"),
    (rb"\s*<(!doctype|html)", "a web page, not an image: download it again"),
    (rb"\s*<(\?xml|svg)", "a vector drawing or XML, not an image: save it as PNG"),
    (rb"\x93NUMPY|PK\x03\x04.{26}[^\0]*\.npy", "a NumPy array, not an image: save it as PNG"),
    (
        rb"PK\x03\x04.{26}[^/]+/(data\.pkl|\.format)|\x80[\2-\5]",
        "a PyTorch or pickle file, not an image: give it in TEST.model_path if it holds weights",
    ),
    (
        rb"PK\x03\x04.{26}(\[Content_Types\]|_rels/|mimetypeapplication/vnd\.oasis)",
        "an Office document, not an image: save its images as PNG",
    ),
    (rb"PK\x03\x04", "a ZIP file, not an image: unpack it"),
    (rb"Rar!|7z\xbc\xaf|\x1f\x8b|.{257}ustar", "an archive: unpack it"),
    (rb"%PDF", "a PDF file: save it as PNG"),
    (
        rb"....ftyp(hei[cxms]|hev[cxms]|mif1|msf1)",
        "a HEIC file, which is not supported: save it as JPEG",
    ),
    (rb"ID3|fLaC|....ftypM4A", "an audio file, not an image"),
)


def head_of(path: Path) -> bytes:
    """Return the first 4096 bytes of a file."""
    with path.open("rb") as file:
        return file.read(4096)


def kind_of(head: bytes) -> str:
    """Return what a file with this start is, and the fix; '' if it may be an image or a video."""
    kinds = (k for start, k in _NOT_IMAGES if re.match(start, head, re.IGNORECASE | re.DOTALL))
    return next(kinds, "")


def tiff_bands(path: Path) -> str:
    """Describe a TIFF file that Pillow cannot identify, as `5 bands of 16 bits`; '' on failure."""
    try:
        with path.open("rb") as file:
            directory = ImageFileDirectory_v2(file.read(8))
            file.seek(directory.next)
            directory.load(file)
        bits = directory.get(258, (1,))
        return f"{directory.get(277, 1)} bands of {bits[0] if type(bits) is tuple else bits} bits"
    except Exception:
        return ""
