"""Helpers of the preparation tests: writing small raw files and checking the output."""

import os
from pathlib import Path

import numpy as np
from PIL import Image

from util.data.image import read_label

SIDE = (6, 8)  # height, width of the small images


def write_image(path: Path, *, size: tuple[int, int] = SIDE) -> Path:
    """Write an image of a single colour that depends on its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tone = sum(os.fsencode(path.name)) % 256
    Image.fromarray(np.full((*size, 3), tone, np.uint8)).save(path)
    return path


def write_ids(path: Path, *values: int, palette: list[int] | None = None) -> Path:
    """Write a label of size SIDE that cycles through `values`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = Image.fromarray(ids_of(*values))
    if palette is not None:
        file.putpalette(palette + [224] * (768 - len(palette)))
    file.save(path)
    return path


def write_colors(path: Path, *colors: tuple[int, int, int]) -> Path:
    """Write an RGB mask of size SIDE that cycles through `colors`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array(colors, np.uint8)[ids_of(*range(len(colors)))]).save(path)
    return path


def ids_of(*values: int) -> np.ndarray:
    """Return the label map written by `write_ids`, (6, 8) uint8."""
    flat = np.full(SIDE[0] * SIDE[1], values[0], np.uint8)
    flat[: len(values)] = values
    return flat.reshape(SIDE)


def lines_of(out: Path, split: str) -> list[str]:
    return (out / "list" / f"{split}.txt").read_text().splitlines()


def assert_label(path: Path, *values: int) -> None:
    """Assert that a single-channel file has the ids of `write_ids(path, *values)`."""
    with Image.open(path) as file:
        assert file.mode == "L"
    assert np.array_equal(read_label(path), ids_of(*values)), np.unique(read_label(path))


def files_below(folder: Path) -> dict[str, bytes]:
    """Relative path -> content, to see that nothing changed."""
    return {
        p.relative_to(folder).as_posix(): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


def write_ade20k(root: Path, images: dict[str, int]) -> Path:
    """Write ADE20K in its published layout with `training` and `validation` images."""
    for split, count in images.items():
        for i in range(1, count + 1):
            name = f"ADE_{'train' if split == 'training' else 'val'}_{i:08d}"
            write_image(root / "images" / split / f"{name}.jpg")
            write_ids(root / "annotations" / split / f"{name}.png", 0, 1, 2, 149, 150, i)
    return root
