"""What the demo takes for an image or a video, and folders with files that it cannot read."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import RunTool, assert_one_sentence
from tests.helpers.runs import with_weights
from util.error import DataError
from util.extra.demo_files import open_source


@pytest.fixture
def ready(tiny: Path) -> Path:
    return with_weights(tiny)


def jpeg() -> bytes:
    buffer, rng = io.BytesIO(), np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (48, 64, 3), np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


def archive(name: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:  # stored: FFmpeg finds the JPEG inside
        file.writestr(name, "<Types/>")
        file.writestr("media/a.jpg", jpeg())
    return buffer.getvalue()


def saved(save: object, *values: object) -> bytes:
    buffer = io.BytesIO()
    save(buffer, *values)
    return buffer.getvalue()


KINDS = {
    "photo.heic": (b"\0\0\0\x18ftypheic" + bytes(99), "is a HEIC file"),
    "photos.zip": (archive("readme.txt"), "is a ZIP file, not an image: unpack it"),
    "photos.mp4": (archive("readme.txt"), "is a ZIP file, not an image: unpack it"),
    "text.docx": (archive("[Content_Types].xml"), "is an Office document, not an image: save its"),
    "page.pdf": (b"%PDF-1.7\n\0\1", "is a PDF file"),
    "page": (b"<!DOCTYPE html>\n\0", "is a web page"),
    "lfs.mp4": (b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer"),
    "a.npy": (saved(np.save, np.zeros((4, 4))), "is a NumPy array, not an image: save it as PNG"),
    "a.npz": (saved(np.savez, np.zeros((4, 4))), "is a NumPy array, not an image"),
    "w.pth": (b"", "is a PyTorch or pickle file, not an image: give it in TEST.model_path"),
    "old.pth": (b"\x80\x02}q\0", "is a PyTorch or pickle file"),
    "song.mp3": (b"ID3\3\0" + jpeg(), "is an audio file"),
    "photos.tar": (b"a.jpg".ljust(257, b"\0") + b"ustar\0" + jpeg(), "is an archive: unpack it"),
    "photos.rar": (b"Rar!\x1a\7\0" + jpeg(), "is an archive: unpack it"),
    "noise.bin": (bytes(range(256)) * 9, "is neither an image nor a video that can be decoded"),
}


@pytest.mark.parametrize("name", KINDS)
def test_files_of_other_kinds_are_named(tmp_path: Path, name: str) -> None:
    content, part = KINDS[name]
    path = tmp_path / name
    path.write_bytes(content)
    if name == "w.pth":
        torch.save({"a": torch.zeros(4)}, path)
    with pytest.raises(DataError, match=f"^--image: (image )?{path} {part}"):
        open_source(str(path))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP"])
def test_damaged_images_without_a_suffix_are_no_videos(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "photo"
    Image.open(io.BytesIO(jpeg())).save(path, kind)
    path.write_bytes(path.read_bytes()[:-700])
    with pytest.raises(DataError, match=f"^--image: image {path} cannot be decoded: damaged"):
        open_source(str(path))


def test_images_of_16_bits_without_a_suffix_are_no_videos(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(tmp_path / "deep", "PNG")
    with pytest.raises(DataError, match="has 16 or more bits per channel"):
        open_source(str(tmp_path / "deep"))


def test_other_files_of_a_folder_are_counted(
    ready: Path, tmp_path: Path, run_tool: RunTool
) -> None:
    folder = tmp_path / "mixed"
    folder.mkdir()
    for name in ("a.HEIC", "b.heic", "notes.txt", "noname"):
        (folder / name).write_bytes(b"x")
    words = ["--config", ready, "--image", folder, "--output", folder]
    code, _, err = run_tool("demo", *words)
    assert_one_sentence(code, err, "has no images (.jpg", "; it holds other files: 2 .heic, 1 ")
    (folder / "a.jpg").write_bytes(jpeg())
    for _ in range(2):
        code, out, err = run_tool("demo", *words)
        assert code == 0, err
        ignored = f"other files in {folder} are ignored: 2 .heic, 1 without a suffix, 1 .txt"
        assert out.count(ignored) == 1


def test_damaged_images_of_a_folder_are_named_after_the_others(
    ready: Path, tmp_path: Path, run_tool: RunTool
) -> None:
    folder, out = tmp_path / "data/images", tmp_path / "out"
    whole = (folder / "p1.png").read_bytes()
    (folder / "p1.png").write_bytes(whole[:-200])
    (folder / "p2.png").write_bytes(b"%PDF-1.7")
    words = ["--config", ready, "--output", out, "--image"]
    code, text, err = run_tool("demo", *words, folder)
    assert_one_sentence(
        code,
        err,
        f"2 of 4 images in {folder} could not be read: replace or remove p1.png, p2.png "
        "(the other images have results)",
    )
    assert "p1.png cannot be decoded: damaged (truncated)" in text
    assert "p2.png is a PDF file" in text
    assert sorted(p.name for p in out.glob("*_gray.png")) == ["p0_gray.png", "p3_gray.png"]
    code, _, err = run_tool("demo", *words, folder / "p1.png")
    assert_one_sentence(code, err, "p1.png cannot be decoded: damaged (truncated); copy it again")
