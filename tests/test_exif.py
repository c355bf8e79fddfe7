"""EXIF orientation: applied to image and label, or rejected if only one of them has it."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers.files import write_turned
from util.data.file import read_header
from util.data.image import read_image, read_label, write_label
from util.data.label import UPRIGHT
from util.data.label_map import LabelMap
from util.data.list_file import Sample
from util.data.load import load
from util.error import DataError

IDS = (np.arange(48) % 16).astype(np.uint8).reshape(6, 8)


def rgb(ids: np.ndarray) -> np.ndarray:
    return np.stack([ids] * 3, -1)


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_as_viewers_do(
    tmp_path: Path, orientation: int, suffix: str
) -> None:
    stored = np.zeros((16, 24, 3), np.uint8)
    stored[:8, :8] = 250  # a bright corner: upper left of the stored pixels
    path = write_turned(tmp_path / f"x.{suffix}", stored, orientation)
    corner = {
        1: (0, 0),
        2: (0, 1),
        3: (1, 1),
        4: (1, 0),
        5: (0, 0),
        6: (0, 1),
        7: (1, 1),
        8: (1, 0),
    }
    shown = read_image(path) > 125
    assert shown.shape[:2] == ((16, 24) if orientation < 5 else (24, 16))
    y, x = corner[orientation]
    assert shown[-8 * y or None :][:8][:, -8 * x or None :][:, :8].mean() > 0.95
    assert shown.mean() == pytest.approx(64 / 384, abs=0.03)


SHOWN = {  # orientation -> the upright image, as the EXIF standard places row 0 and column 0
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: np.transpose,
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a.T, 2),
    8: np.rot90,
}


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate"])
@pytest.mark.parametrize("mode", ["L", "P", "I;16", "1", "RGB"])
def test_tiff_of_any_mode_is_upright(tmp_path: Path, mode: str, compression: str) -> None:
    ids = np.random.default_rng(0).integers(0, 2 if mode == "1" else 9, (12, 20)).astype(np.uint8)
    kinds = {"1": bool, "I;16": np.uint16}
    file = Image.fromarray(rgb(ids) if mode == "RGB" else ids.astype(kinds.get(mode, np.uint8)))
    if mode == "P":
        file.putpalette(np.arange(256).repeat(3).tolist())
    assert file.mode == mode
    path, exif = tmp_path / "x.tif", Image.Exif()
    for orientation, turn in SHOWN.items():
        exif[0x0112] = orientation
        file.save(path, exif=exif, compression=compression)
        np.testing.assert_array_equal(read_label(path), turn(ids))
        header = read_header(path)
        assert (header.height, header.width, header.orientation) == (*turn(ids).shape, orientation)
        if mode != "I;16":
            values = turn(ids) * np.uint8(255 if mode == "1" else 1)
            np.testing.assert_array_equal(read_image(path), rgb(values))


def pair(folder: Path, image_turned: int, label_turned: int, *, side: bool = False) -> Sample:
    ids = IDS if side else IDS[:, ::-1]
    image = write_turned(folder / "x.png", rgb(IDS) * 15, image_turned)
    return Sample(image, write_turned(folder / "y.png", np.ascontiguousarray(ids), label_turned))


@pytest.mark.parametrize("orientation", range(2, 9))
def test_exif_orientation_of_image_and_label_alike(tmp_path: Path, orientation: int) -> None:
    image, label = load(pair(tmp_path, orientation, orientation, side=True), LabelMap(16, 255))
    np.testing.assert_array_equal(image[..., 0] // 15, label)


@pytest.mark.parametrize("orientation", range(2, 9))
def test_exif_orientation_of_one_alone_is_refused_unless_sizes_tell(
    tmp_path: Path, orientation: int
) -> None:
    label_map = LabelMap(16, 255)
    with pytest.raises(DataError, match=f"EXIF orientation {orientation}, .*exiftool"):
        load(pair(tmp_path, orientation, 1), label_map)
    with pytest.raises(DataError, match=rf"label .* has EXIF orientation {orientation}, .* has 1"):
        load(pair(tmp_path, 1, orientation), label_map)
    image = read_image(write_turned(tmp_path / "x.png", rgb(IDS) * 15, orientation))
    if orientation < 5:
        label = tmp_path / "upright.png"  # as written by tool/prepare_*.py
        write_label(label, image[..., 0] // 15, note=UPRIGHT)
    else:  # as written by annotation tools that display images upright
        label = tmp_path / "shown.png"
        write_label(label, image[..., 0] // 15)
    image, ids = load(Sample(tmp_path / "x.png", label), label_map)
    np.testing.assert_array_equal(image[..., 0] // 15, ids)


def test_malformed_exif_is_no_orientation(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (16, 16, 3)).astype(np.uint8)
    path = write_turned(tmp_path / "x.jpg", noise, 6)
    whole, rng = path.read_bytes(), np.random.default_rng(1)
    start = whole.index(b"Exif")
    for _ in range(200):
        broken = bytearray(whole)
        for place in rng.integers(start + 6, start + 32, 4):
            broken[place] = rng.integers(256)
        path.write_bytes(broken)
        assert read_image(path).shape == (16, 16, 3)
