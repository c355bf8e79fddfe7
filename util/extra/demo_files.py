"""The demo's files: resolving --image, and naming results without overwriting the user's files."""

import logging
import re
from pathlib import Path

from util.data.image import IMAGE_SUFFIXES, read_image, read_note
from util.data.list_file import unique_names
from util.error import DataError, nearest
from util.extra.prepare.files import walk
from util.extra.video import VIDEO_SUFFIXES, VideoReader, is_our_video

log = logging.getLogger("semseg")
NOTE = "demo"  # stored in images that a demo writes: they may be replaced, and are not input
TABLE_HEAD = ["frame", "seconds"]

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
    if suffix in VIDEO_SUFFIXES:
        return VideoReader(path)
    if suffix in IMAGE_SUFFIXES and suffix != ".gif":  # a .gif may be either
        return [(path, path.stem)]
    try:
        read_image(path)
    except DataError as error:
        with path.open("rb") as file:
            if b"\0" in file.read(4096):  # FFmpeg would also render text as a video
                return VideoReader(path)
        raise DataError(f"--image: {error}") from None
    return [(path, path.stem)]


def images_of(folder: Path) -> Images:
    """Find the images below a folder, following links, and name their results.

    Names omit the extension where they stay unique. Results of earlier runs are ignored.
    """
    found = sorted(path for path in walk(folder) if path.suffix.lower() in IMAGE_SUFFIXES)
    paths = [path for path in found if not is_ours(path)]
    if len(paths) < len(found):
        log.info(f"{len(found) - len(paths)} results of an earlier run in {folder} are ignored")
    if not paths:
        raise DataError(f"--image: folder {folder} has no images ({', '.join(IMAGE_SUFFIXES)})")
    names = unique_names([str(path.relative_to(folder)) for path in paths])
    return list(zip(paths, names, strict=True))


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
            return path.read_text(errors="replace").startswith(",".join(TABLE_HEAD))
        return path.suffix == ".png" and read_note(path) == NOTE
    except (DataError, OSError):
        return False
