"""Masks that are coded differently from the rest: prepare_folder.py refuses them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import RunTool
from tests.helpers.own_data import Raw
from tests.helpers.raw_data import ids_of, write_ids


@pytest.fixture
def raw(tmp_path: Path, run_tool: RunTool) -> Raw:
    return Raw(tmp_path / "raw", run_tool)


def fill(raw: Raw, *ids: int, count: int = 4) -> None:
    for i in range(count):
        raw.pair(f"images/{i}.jpg", f"masks/{i}.png", *ids)


def shrink(path: Path) -> None:
    """Save a mask of two ids with 1 bit, as some image programs do: they become 0 and 1."""
    Image.fromarray(np.array(Image.open(path)) > 0).save(path)


@pytest.mark.parametrize("ids", [(0, 2), (0, 255), (0, 1, 2)])
def test_a_1_bit_mask_among_others(raw: Raw, tmp_path: Path, ids: tuple[int, ...]) -> None:
    fill(raw, *ids)
    shrink(raw.root / "masks/2.png")
    parts = ("masks/2.png has 1-bit ids", "masks/0.png", "save it again like the others")
    raw.refused(*parts)
    (tmp_path / "n.txt").write_text("road\nsky\n")
    raw.refused(*parts, words=("--names", tmp_path / "n.txt"))
    (tmp_path / "c.txt").write_text("0 0 0\n255 255 255\n")
    raw.refused(*parts, words=("--colors", tmp_path / "c.txt"))
    assert not raw.out().exists()


def test_a_1_bit_mask_with_the_classes_of_another_folder(raw: Raw) -> None:
    fill(raw, 0, 1, 2)
    assert raw.prepare()[0] == 0
    write_ids(raw.root / "masks/2.png", 0, 2)
    shrink(raw.root / "masks/2.png")
    raw.refused("masks/2.png has 1-bit ids", words=("--like", raw.out()), out="other")


def test_1_bit_masks_alone_or_empty_are_fine(raw: Raw) -> None:
    fill(raw, 0, 2)
    write_ids(raw.root / "masks/2.png", 0)
    shrink(raw.root / "masks/2.png")
    assert raw.prepare("--strict")[0] == 0
    for i in range(4):
        shrink(raw.root / f"masks/{i}.png")
    assert raw.prepare("--strict", out="alone")[0] == 0


def test_a_0_255_mask_among_0_1_masks(raw: Raw) -> None:
    fill(raw, 0, 1)
    write_ids(raw.root / "masks/2.png", 0, 255)
    raw.refused("masks/2.png looks like a 0/255 mask", "masks/0.png holds id 1", "--void 255")
    assert raw.prepare("--void", 255)[0] == 0  # the user has decided
    assert raw.prepare("--void", "none", out="three")[0] == 0
    assert raw.label("2", out="three")[0, :2].tolist() == [0, 2]
    for i in range(4):
        write_ids(raw.root / f"masks/{i}.png", 0, 255)
    words = ("--like", raw.out())
    raw.refused("masks/0.png (and 3 more of 4) looks like", "--names", words=words, out="x")


def test_a_0_255_mask_among_ids(raw: Raw) -> None:
    fill(raw, 0, 1, 2)
    Image.fromarray(np.where(ids_of(0) > 0, 0, np.eye(6, 8)).astype(np.uint8) * 255).save(
        raw.root / "masks/2.png"
    )
    raw.refused("masks/2.png holds only 0 and 255", "masks/3.png holds id 2", "--void 255")
    assert raw.prepare("--void", 255)[0] == 0


def test_palettes_that_differ_with_the_ids_of_another_folder(raw: Raw) -> None:
    fill(raw, 0, 1, 2)
    assert raw.prepare()[0] == 0
    for i in range(4):
        palette = [1, 1, 1, 2, 2, 2, 3, 3, 3]
        write_ids(
            raw.root / f"masks/{i}.png", 0, 1, 2, palette=palette[::-1] if i == 2 else palette
        )
    parts = ("mask ", "masks/2.png has a palette", "save it again like the others")
    raw.refused(*parts, words=("--like", raw.out()), out="x")
