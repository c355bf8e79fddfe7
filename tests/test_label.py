"""Label encodings: ids are read as stored, or the file is rejected with the fix."""

import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from tests.helpers.files import PNG_PALETTE, write_png, write_tiff
from util.data.image import read_image, read_label, write_image, write_label
from util.data.label import decode_label
from util.error import DataError

IDS = (np.arange(48) % 16).astype(np.uint8).reshape(6, 8)
COLOR = np.array([0, 1, 0], np.uint8)
COLORS = [c for i in range(16) for c in (i * 16, 255 - i, i)]


def rgb(ids: np.ndarray) -> np.ndarray:
    return np.stack([ids] * 3, -1)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_gray_and_palette_files_of_few_bits_keep_their_ids(tmp_path: Path, bits: int) -> None:
    ids = np.minimum(IDS, 2**bits - 1)
    gray = write_png(tmp_path / "gray.png", ids, bits)
    indexed = write_png(tmp_path / "p.png", ids, bits, kind=PNG_PALETTE, palette=COLORS)
    tiff = write_tiff(tmp_path / "gray.tif", ids, bits=bits)
    for path in (gray, indexed, tiff):
        np.testing.assert_array_equal(read_label(path), ids)
        assert decode_label(path).bits == bits
    assert decode_label(gray).kind == "ids"
    palette = decode_label(indexed).palette
    assert palette == {i: i * 16 << 16 | 255 - i << 8 | i for i in np.unique(ids).tolist()}


READABLE: dict[str, Callable[[Path], object]] = {
    "gray as RGB": lambda p: Image.fromarray(rgb(IDS)).save(p / "x.png"),
    "gray as RGB BMP": lambda p: Image.fromarray(rgb(IDS)).save(p / "x.bmp"),
    "gray as RGB TIFF": lambda p: write_tiff(p / "x.tif", rgb(IDS), photometric=2),
    "gray as opaque RGBA": lambda p: Image.fromarray(rgb(IDS)).convert("RGBA").save(p / "x.png"),
    "gray with opaque alpha": lambda p: Image.fromarray(IDS).convert("LA").save(p / "x.png"),
    "16 bits": lambda p: Image.fromarray(IDS.astype(np.uint16)).save(p / "x.png"),
    "16 bits signed": lambda p: write_tiff(p / "x.tif", IDS.astype("<i2")),
    "32 bits": lambda p: write_tiff(p / "x.tif", IDS.astype("<i4")),
    "whole floats": lambda p: write_tiff(p / "x.tif", IDS.astype("<f4")),
    "GIF": lambda p: Image.fromarray(IDS).save(p / "x.gif"),
    "lossless WebP": lambda p: Image.fromarray(IDS).save(p / "x.webp", lossless=True, exact=True),
    "PGM": lambda p: Image.fromarray(IDS).save(p / "x.pgm"),
    "LZW TIFF": lambda p: Image.fromarray(IDS).save(p / "x.tif", compression="tiff_lzw"),
}


@pytest.mark.parametrize("kind", READABLE)
def test_all_encodings_of_ids_are_read(tmp_path: Path, kind: str) -> None:
    READABLE[kind](tmp_path)
    (path,) = tmp_path.iterdir()
    np.testing.assert_array_equal(read_label(path), IDS)


def test_negative_ids_stay_negative(tmp_path: Path) -> None:
    for kind in ("<i1", "<i2", "<i4", "<f4"):
        path = write_tiff(tmp_path / "x.tif", IDS.astype(kind) - 1)
        assert read_label(path).min() == -1


@pytest.mark.parametrize(("read", "what"), [(read_label, "label"), (read_image, "image")])
def test_a_png_file_with_a_flipped_bit_is_refused(
    tmp_path: Path, read: Callable[[Path], np.ndarray], what: str
) -> None:
    path = tmp_path / "x.png"
    Image.fromarray(IDS).save(path, compress_level=0)  # Pillow would read another value
    whole = path.read_bytes()
    place = whole.index(b"IDAT") + 20
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    message = rf"{what} .*x\.png cannot be decoded: damaged \(a checksum is wrong\); copy it again"
    with pytest.raises(DataError, match=message):
        read(path)


@pytest.mark.parametrize("read", [read_label, read_image])
def test_a_png_file_with_a_flipped_bit_in_a_length_is_refused(
    tmp_path: Path, rng: np.random.Generator, read: Callable[[Path], np.ndarray]
) -> None:
    path = tmp_path / "x.png"
    Image.fromarray(rng.integers(0, 255, (400, 500), np.uint8)).save(path)
    whole = path.read_bytes()
    starts = [match.start() - 4 for match in re.finditer(b"IDAT", whole)]
    assert len(starts) > 2
    for start in starts:
        path.write_bytes(whole[:start] + b"\x40" + whole[start + 1 :])
        with pytest.raises(DataError, match=r"x\.png cannot be decoded: damaged"):
            read(path)


@pytest.mark.parametrize("read", [read_label, read_image])
def test_bytes_after_the_end_of_a_png_file_do_not_count(
    tmp_path: Path, read: Callable[[Path], np.ndarray]
) -> None:
    path = write_png(tmp_path / "x.png", IDS, 8)
    before = read(path)
    path.write_bytes(path.read_bytes() + bytes(64))  # as editors leave that crop in place
    np.testing.assert_array_equal(read(path), before)


def transparent(path: Path) -> None:
    pixels = np.dstack([rgb(IDS), np.full_like(IDS, 255)])
    pixels[0, :3, 3] = 0
    Image.fromarray(pixels).save(path / "x.png")


def nan(path: Path) -> None:
    pixels = IDS.astype("<f4")
    pixels[0, :2] = np.nan
    write_tiff(path / "x.tif", pixels)


def jpeg_named_png(path: Path) -> None:
    Image.fromarray(IDS).save(path / "x.jpg")
    (path / "x.jpg").rename(path / "x.png")


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "JPEG": (lambda p: Image.fromarray(IDS).save(p / "x.jpg"), "lossy compression (JPEG)"),
    "JPEG named png": (jpeg_named_png, "lossy compression (JPEG)"),
    "JPEG in TIFF": (
        lambda p: Image.fromarray(IDS).save(p / "x.tif", compression="jpeg"),
        "lossy compression (JPEG)",
    ),
    "lossy WebP": (
        lambda p: Image.fromarray(rgb(IDS)).save(p / "x.webp"),
        "lossy compression (WEBP)",
    ),
    "colours": (lambda p: Image.fromarray(rgb(IDS) ^ COLOR).save(p / "x.png"), "is a colour image"),
    "16-bit RGB": (
        lambda p: cv2.imwrite(str(p / "x.png"), rgb(IDS).astype(np.uint16)),
        "channels of 16 bits (mode RGB): save ids in one channel",
    ),
    "5 bands": (
        lambda p: write_tiff(p / "x.tif", np.stack([IDS] * 5, -1)),
        "a TIFF file with 5 bands of 8 bits",
    ),
    "2 float bands": (
        lambda p: write_tiff(p / "x.tif", np.stack([IDS] * 2, -1).astype("<f4")),
        "2 bands of 32 bits, which is not supported: save one band of integers",
    ),
    "fractions": (
        lambda p: write_tiff(p / "x.tif", IDS.astype("<f4") / 2),
        "holds 0.5 (24 such pixels), but ids are integers",
    ),
    "NaN": (nan, "holds nan (2 such pixels)"),
    "transparent pixels": (transparent, "has 3 transparent pixels"),
    "white is zero": (
        lambda p: write_tiff(p / "x.tif", IDS, photometric=0),
        "stored inverted (0 is white)",
    ),
    "PGM of few levels": (
        lambda p: (p / "x.pgm").write_bytes(b"P5 8 6 15\n" + IDS.tobytes()),
        "a PGM file with values 0..15",
    ),
    "pages": (lambda p: write_tiff(p / "x.tif", IDS, pages=3), "holds 3 frames"),
    "animation": (
        lambda p: Image.fromarray(IDS).save(
            p / "x.gif", save_all=True, append_images=[Image.fromarray(IDS[::-1].copy())]
        ),
        "holds 2 frames",
    ),
    "CMYK": (lambda p: Image.new("CMYK", (8, 6)).save(p / "x.tif"), "(mode CMYK)"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_ambiguous_labels_are_rejected_with_the_fix(tmp_path: Path, kind: str) -> None:
    write, part = REFUSED[kind]
    write(tmp_path)
    (path,) = tmp_path.iterdir()
    with pytest.raises(DataError) as error:
        read_label(path)
    assert part in str(error.value) and str(path) in str(error.value)


def test_mutated_files_are_read_or_rejected(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    write_image(tmp_path / "a.png", rng.integers(0, 255, (9, 9, 3)).astype(np.uint8))
    write_png(tmp_path / "b.png", IDS, 4, kind=PNG_PALETTE, palette=COLORS)
    for suffix in ("jpg", "gif", "webp", "tif", "bmp"):
        Image.fromarray(IDS).save(tmp_path / f"c.{suffix}")
    for path in sorted(tmp_path.iterdir()):
        whole = path.read_bytes()
        for _ in range(60):
            broken = bytearray(whole[: rng.integers(1, len(whole)) if rng.random() < 0.2 else None])
            for place in rng.integers(0, len(broken), 3):
                broken[place] = rng.integers(256)
            path.write_bytes(broken)
            for read in (read_image, read_label):
                try:
                    assert read(path).size
                except DataError as error:
                    assert str(path) in str(error)


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"\n<!DOCTYPE html><html>", "is a web page"),
        (b"PK\3\4....", "is a ZIP file"),
        (b"\0\0\0\x18ftypheic", "is a HEIC file"),
        (b"", "cannot be decoded"),
    ],
)
def test_files_that_are_not_images_are_named(tmp_path: Path, content: bytes, part: str) -> None:
    (tmp_path / "x.jpg").write_bytes(content)
    with pytest.raises(DataError, match=part):
        read_image(tmp_path / "x.jpg")


def test_huge_images_work_up_to_a_reported_limit(tmp_path: Path) -> None:
    # Above Pillow's limit of 179 million.
    Image.new("L", (13400, 13400)).save(tmp_path / "x.png", compress_level=1)
    assert read_label(tmp_path / "x.png").shape == (13400, 13400)
    header = bytearray(write_png(tmp_path / "x.png", IDS, 8).read_bytes())
    header[16:24] = struct.pack(">II", 40000, 40000)
    header[29:33] = struct.pack(">I", zlib.crc32(header[12:29]))
    (tmp_path / "x.png").write_bytes(header)
    with pytest.raises(DataError, match=r"40000x40000 pixels, more than .*: cut it into tiles"):
        read_label(tmp_path / "x.png")


def test_long_names_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 250 + ".png")
    write_label(path, IDS)
    np.testing.assert_array_equal(read_label(path), IDS)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
