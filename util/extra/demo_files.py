"""The demo's files: resolving --image, and naming results without overwriting the user's files."""

import logging
import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from util.data.file import CodingError
from util.data.file_kind import head_of, kind_of
from util.data.image import IMAGE_SUFFIXES, read_image, read_note
from util.data.list_file import unique_names
from util.error import DataError, nearest
from util.extra.prepare.files import walk
from util.extra.video import VIDEO_SUFFIXES, VideoReader, is_our_video

log = logging.getLogger("semseg")
NOTE = "demo"  # stored in images that a demo writes: they may be replaced, and are not input
TABLE_HEAD = ["frame", "seconds"]
_IMAGE_START = re.compile(rb"\x89PNG|\xff\xd8\xff|GIF8|BM|II\*\0|MM\0\*|RIFF.{4}WEBP", re.DOTALL)

Images = list[tuple[Path, str]]  # image, base name of its results


def open_source(text: str) -> Images | VideoReader:
    """Resolve --image: images with the names of their results, a video file or a camera."""
    path = Path(text)
    camera = re.fullmatch(r"(?:/dev/video)?([0-9]+)", text)
    if camera and not path.is_file() and not path.is_dir():
        return VideoReader(int(camera[1]))
    if text and path.is_dir():
        return images_of(path)
    if path.is_file():
        return open_file(path)
    if not text or path.exists():
        raise DataError(f"--image must be a file, a folder or a camera number, got '{text}'")
    siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
    near = nearest(path.name, siblings)
    hint = f"; nearest: {path.parent / near[0]}" if near else ""
    raise DataError(f"--image: no file or folder {path}{hint}")


def open_file(path: Path) -> Images | VideoReader:
    """Open an image or a video, recognised by suffix or, failing that, by content."""
    suffix = path.suffix.lower()
    if suffix in IMAGE_SUFFIXES and suffix != ".gif":  # a .gif may be either
        return [(path, path.stem)]
    head = head_of(path)
    kind = kind_of(head)  # FFmpeg would play the JPEG files in an archive
    if suffix in VIDEO_SUFFIXES:
        if kind:
            raise DataError(f"--image: {path} is {kind}")
        return VideoReader(path)
    try:
        read_image(path)
    except DataError as error:
        # FFmpeg would also render text and damaged images as a video.
        is_animation = isinstance(error, CodingError) and head.startswith(b"GIF8")
        if kind or (not is_animation and (_IMAGE_START.match(head) or b"\0" not in head)):
            raise DataError(f"--image: {error}") from None
    else:
        return [(path, path.stem)]
    try:
        return VideoReader(path)
    except DataError:
        raise DataError(
            f"--image: {path} is neither an image nor a video that can be decoded: give a file "
            "such as .png, .jpg or .mp4"
        ) from None


def images_of(folder: Path) -> Images:
    """Find the images below a folder, following links, and name their results.

    Names omit the extension where they stay unique. Results of earlier runs and other files are
    ignored.
    """
    found: list[Path] = []
    others: list[Path] = []
    for path in sorted(walk(folder)):
        (found if path.suffix.lower() in IMAGE_SUFFIXES else others).append(path)
    paths = [path for path in found if not is_ours(path)]
    if len(paths) < len(found):
        log.info(f"{len(found) - len(paths)} results of an earlier run in {folder} are ignored")
    foreign = (path for path in others if not is_ours(path))
    counts = Counter(path.suffix.lower() or "without a suffix" for path in foreign)
    kinds = ", ".join(f"{count} {suffix}" for suffix, count in counts.most_common())
    if not paths:
        hint = f"; it holds other files: {kinds}" if kinds else ""
        raise DataError(
            f"--image: folder {folder} has no images ({', '.join(IMAGE_SUFFIXES)}){hint}"
        )
    if kinds:
        log.info(f"other files in {folder} are ignored: {kinds}")
    names = unique_names([str(path.relative_to(folder)) for path in paths])
    return list(zip(paths, names, strict=True))


def each_image(source: Images) -> Iterator[tuple[np.ndarray, str]]:
    """Read the images one by one; yield each with the name of its results.

    In a folder unreadable ones are logged and skipped. Raises DataError, naming them, at the end.
    """
    failed = []
    for path, name in tqdm(source, desc="Demo", leave=False, disable=None):
        try:
            image = read_image(path)
        except DataError as error:
            if len(source) == 1:
                raise
            log.warning(str(error))
            failed.append(path)
            continue
        yield image, name
    if failed:
        folder = os.path.commonpath([path.parent for path, _ in source])
        shown = ", ".join(os.path.relpath(path, folder) for path in failed)
        raise DataError(
            f"{len(failed)} of {len(source)} images in {folder} could not be read: replace or "
            f"remove {shown} (the other images have results)"
        )


def targets(source: Images | VideoReader, output: Path, *, has_attention: bool) -> list[Path]:
    """Return all files that will be written."""
    if isinstance(source, VideoReader):
        return list(video_paths(output / source.name))
    kinds = ("gray", "color", "overlay", *(("collect", "distribute") if has_attention else ()))
    return [image_path(output / name, kind) for _, name in source for kind in kinds]


def image_path(stem: Path, kind: str) -> Path:
    return stem.with_name(f"{stem.name}_{kind}.png")


def video_paths(stem: Path) -> tuple[Path, Path]:
    return stem.with_name(f"{stem.name}_overlay.mp4"), stem.with_name(f"{stem.name}_shares.csv")


def is_ours(path: Path) -> bool:
    """Whether a demo wrote the file."""
    try:
        if path.suffix == ".mp4":
            return is_our_video(path)
        if path.suffix == ".csv":
            return head_of(path).startswith(",".join(TABLE_HEAD).encode())
        return path.suffix == ".png" and read_note(path) == NOTE
    except (DataError, OSError):
        return False
