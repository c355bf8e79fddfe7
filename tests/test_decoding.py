"""Colour JPEG files: same pixels and same rejections with either decoder."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from util.data import image as module
from util.data.image import read_image
from util.error import DataError

pytest.importorskip("simplejpeg")
PLAIN = {"quality": 75, "subsampling": 2}
KINDS = [
    *({"quality": q, "subsampling": s} for q in (30, 75, 100) for s in (0, 1, 2)),
    {**PLAIN, "progressive": True},
    {**PLAIN, "restart_marker_blocks": 7},
    {"quality": 90, "keep_rgb": True},
]


@pytest.fixture
def pixels(rng: np.random.Generator) -> np.ndarray:
    """Odd sides, smooth areas and noise."""
    y, x = np.mgrid[:61, :83]
    smooth = np.stack((x * 3, y * 4, (x + y) * 2), -1) + rng.normal(0, 20, (61, 83, 3))
    return np.clip(smooth, 0, 255).astype(np.uint8)


def by_pillow(path: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    with monkeypatch.context() as patch:
        patch.setattr(module, "simplejpeg", None)
        return read_image(path)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_the_same_pixels(
    pixels: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: dict
) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(pixels).save(path, **kind)
    monkeypatch.setattr(Image.Image, "convert", None)  # must not be called
    found = read_image(path)
    monkeypatch.undo()
    assert np.array_equal(found, by_pillow(path, monkeypatch))


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_other_modes_are_left_to_pillow(pixels: np.ndarray, tmp_path: Path, mode: str) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(pixels).convert(mode).save(path)
    with Image.open(path) as file:
        assert np.array_equal(read_image(path), np.array(file.convert("RGB")))


def test_damaged_files_are_read_or_refused_alike(
    pixels: np.ndarray, rng: np.random.Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(pixels).save(path, **PLAIN)
    whole, refused = path.read_bytes(), 0
    for i in range(60):
        content = bytearray(whole)
        content[rng.integers(2, len(whole))] ^= rng.integers(1, 256)
        path.write_bytes(content[: rng.integers(len(whole) // 2, len(whole))] if i % 3 else content)
        try:
            found = read_image(path)
        except DataError:
            refused += 1
            with pytest.raises(DataError):
                by_pillow(path, monkeypatch)
        else:
            assert np.array_equal(found, by_pillow(path, monkeypatch))
    assert 40 <= refused < 60
