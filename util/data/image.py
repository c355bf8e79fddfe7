"""Image and label files -> arrays and back; every way a file can be bad, in words."""

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from util.error import DataError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
_NOTE = "semseg"  # keyword of our text in PNG files
_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"


def read_image(path: Path) -> np.ndarray:
    """An image as RGB (H, W, 3) uint8, upright. Raises DataError."""
    with _decoding(path, "image"), Image.open(path) as file:
        if file.mode[0] in "IF":
            raise DataError(
                f"{path} has 16 or more bits a channel (mode {file.mode}): save as 8 bit"
            )
        return np.array(ImageOps.exif_transpose(file).convert("RGB"))


def read_label(path: Path, *, as_colors: bool = False) -> np.ndarray:
    """A label map as ids (H, W), uint8 or int32; palette files give indices. Raises DataError.

    `as_colors`: what the file shows, as ids r*65536 + g*256 + b; colour images are fine then.
    """
    with _decoding(path, "label"), Image.open(path) as file:
        if as_colors:
            red, green, blue = np.moveaxis(np.array(file.convert("RGB")).astype(np.int32), -1, 0)
            return red << 16 | green << 8 | blue
        if file.mode in ("L", "P"):
            return np.array(file)
        if file.mode.startswith("I") or file.mode == "1":
            return np.array(file).astype(np.int32)
        raise DataError(
            f"label {path} is a colour image (mode {file.mode}): labels must have one channel "
            "that holds class ids; or name a file of `R G B` lines, one per class, in "
            "DATA.label_map"
        )


class _decoding:  # noqa: N801 - reads as a statement
    """Turns the many errors of decoders into one sentence."""

    def __init__(self, path: Path, what: str) -> None:
        self.path, self.what = path, what

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, FileNotFoundError):
            raise DataError(f"no {self.what} {self.path}") from None
        if isinstance(error, (OSError, SyntaxError, ValueError, Image.DecompressionBombError)):
            reason = "" if isinstance(error, UnidentifiedImageError) else f" ({error})"
            raise DataError(
                f"{self.what} {self.path} cannot be decoded: damaged or not an image{reason}"
            ) from None


def check_sizes(image: np.ndarray, label: np.ndarray, image_path: Path, label_path: Path) -> None:
    """Raise DataError unless image and label have the same height and width."""
    if image.shape[:2] != label.shape:
        raise DataError(
            f"image {image_path} is {image.shape[1]}x{image.shape[0]}, its label {label_path} "
            f"is {label.shape[1]}x{label.shape[0]} (width x height): they must be of one size"
        )


def check_label(label: np.ndarray, path: Path, *, classes: int, ignore_label: int) -> None:
    """Raise DataError naming file, id and pixel count if an id is not 0..classes-1 or ignored."""
    wrong = (label >= classes) | (label < 0)
    wrong &= label != ignore_label
    if not wrong.any():
        return
    ids, counts = np.unique(label[wrong], return_counts=True)
    shown = ", ".join(f"{i} ({n} pixels)" for i, n in zip(ids[:4], counts[:4], strict=True))
    more = f" and {len(ids) - 4} more ids" if len(ids) > 4 else ""
    cause = probable_cause(np.unique(label).tolist(), classes=classes, ignore_label=ignore_label)
    assert cause is not None
    raise DataError(
        f"label {path} holds id {shown}{more}: ids must be 0..{classes - 1} (DATA.classes "
        f"{classes}) or {ignore_label} (TRAIN.ignore_label); {cause.looks_like}: set {cause.cure}"
    )


@dataclass(frozen=True)
class Cause:
    """What wrong ids come from, most likely, and the config line that cures it."""

    kind: str
    looks_like: str
    cure: str


def probable_cause(ids: Sequence[int], *, classes: int, ignore_label: int) -> Cause | None:
    """Why ids (all that a file, or a dataset, holds) are not 0..classes-1 or ignored; None if so.

    Only 0 and 255 counts as wrong for two classes even where 255 is the ignore label: there would
    be nothing to learn.
    """
    found = set(ids)
    is_mask = classes == 2 or (classes <= 255 and ignore_label != 255)
    if is_mask and found <= {0, 255} and 255 in found:
        return Cause("mask-0-255", "looks like a 0/255 mask", "DATA.label_map: {0: 0, 255: 1}")
    wrong = sorted(i for i in found if not 0 <= i < classes and i != ignore_label)
    if not wrong:
        return None
    kept = found - {ignore_label}
    if classes == 19 and max(kept) <= 33 and min(kept) >= -1:
        return Cause(
            "cityscapes-ids", "looks like Cityscapes labelIds", "DATA.label_map: cityscapes"
        )
    if wrong == [classes] == [150]:
        return Cause("ade20k-ids", "looks like ADE20K's raw ids 0..150", "DATA.label_map: ade20k")
    if wrong == [classes] and 0 not in found:
        table = ", ".join(f"{i}: {i - 1}" for i in range(1, classes + 1))
        looks_like = f"looks as if ids started at 1 (1..{classes})"
        return Cause("off-by-one", looks_like, f"DATA.label_map: {{{table}}}")
    if len(wrong) <= 2:
        looks_like = "looks like another number for void, or a class more"
        cure = f"DATA.ignore_ids: {wrong}, or DATA.classes: {wrong[-1] + 1}"
        return Cause("void-id", looks_like, cure)
    return Cause(
        "other-ids",
        "looks like ids of another set of classes, or shades of gray",
        f"DATA.classes: {wrong[-1] + 1}, or DATA.label_map: a file of `id: class` lines",
    )


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
        text.add_text(_NOTE, note)
    path.parent.mkdir(parents=True, exist_ok=True)
    # A name of its own: other threads and processes may write the same image.
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_native_id()}.part")
    try:
        Image.fromarray(image).save(temporary, format="PNG", compress_level=1, pnginfo=text)
        temporary.replace(path)
    except OSError as error:
        error.filename = error.filename or str(path)  # of a full disk Python does not say it
        raise
    finally:
        temporary.unlink(missing_ok=True)


def read_note(path: Path) -> str:
    """The note that `write_image` put into a file, '' where there is none. Raises DataError."""
    with _decoding(path, "image"), Image.open(path) as file:
        return file.info.get(_NOTE, "")


def is_whole_png(path: Path) -> bool:
    """Whether a PNG is there to its end, without decoding it."""
    if not path.is_file() or path.stat().st_size < len(_PNG_END):
        return False
    with path.open("rb") as file:
        file.seek(-len(_PNG_END), os.SEEK_END)
        return file.read() == _PNG_END
