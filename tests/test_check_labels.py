"""tool/check_data.py on labels in many encodings: problems are named, the printed fixes work."""

import re
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from tests.conftest import RunTool
from tests.helpers.faults import HEIGHT, WIDTH, Data, follow
from util.config import load_config
from util.data.label_map import label_map_of
from util.data.list_file import read_list
from util.data.load import load

COLORS = np.array([[0, 0, 0], [200, 0, 0], [0, 200, 0]], np.uint8)
Spoil = Callable[[Data], np.ndarray]  # returns the right classes of all labels


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Data:
    monkeypatch.chdir(tmp_path)
    return Data(tmp_path / "my data")


def save_all(data: Data, label: np.ndarray, **options: object) -> None:
    for path in data.root.glob("*/*.png"):
        Image.fromarray(label).save(path, **options)


def zero_is_no_data(data: Data) -> np.ndarray:
    save_all(data, data.ids(4))
    return (data.ids(4) - 1).astype(np.uint8)


def zero_is_no_data_and_not_everywhere(data: Data) -> np.ndarray:
    """Ids 1..3, and 0 (no data) in a single file."""
    save_all(data, data.ids(3, first=1))
    data.write_label("train/2.png", data.ids(4))
    return (data.ids(3, first=1) - 1).astype(np.uint8)


def three_grays(data: Data) -> np.ndarray:
    save_all(data, np.array([0, 128, 255], np.uint8)[data.ids(3)])
    return data.ids(3)


def smoothed_mask(data: Data) -> np.ndarray:
    data.words = ["DATA.classes", "2"]
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[5:15, 8:24] = 255
    save_all(data, cv2.GaussianBlur(mask, (0, 0), 0.6))
    return mask // 255


def mask_of_2_bits(data: Data) -> np.ndarray:
    """Ids 0..2 in 2 bits, which Pillow alone would read as 0, 85, 170."""
    for path in data.root.glob("*/*.png"):
        write_gray_png(path, data.ids(3), bits=2)
    return data.ids(3)


def void_of_minus_1(data: Data) -> np.ndarray:
    label = data.ids(3).astype(np.int32)
    label[0] = -1
    for path in data.root.glob("*/*.png"):
        Image.fromarray(label).save(path.with_suffix(".tif"))
        path.unlink()
    for split in ("train", "val"):
        path = data.root / f"{split}.txt"
        path.write_text(path.read_text().replace(".png", ".tif"))
    return np.where(label < 0, 255, label).astype(np.uint8)


def palettes_that_contradict(data: Data) -> np.ndarray:
    """Palettes as written by image editors: colours in order of occurrence."""
    know_colors(data)
    for i, path in enumerate(sorted(data.root.glob("*/*.png"))):
        order = [1, 2, 0] if i % 2 else [0, 1, 2]
        file = Image.fromarray(np.argsort(order).astype(np.uint8)[data.ids(3)])
        file.putpalette(COLORS[order].ravel().tolist())
        file.save(path)
    return data.ids(3)


def palette_in_another_order(data: Data) -> np.ndarray:
    know_colors(data)
    file = Image.fromarray(np.array([2, 0, 1], np.uint8)[data.ids(3)])
    file.putpalette(COLORS[[1, 2, 0]].ravel().tolist())
    for path in data.root.glob("*/*.png"):
        file.save(path)
    return data.ids(3)


def know_colors(data: Data) -> None:
    np.savetxt(data.root.parent / "colors.txt", COLORS, fmt="%d")
    data.words = ["TEST.colors_path", "colors.txt"]


def write_gray_png(path: Path, ids: np.ndarray, *, bits: int) -> None:
    """A PNG of 1, 2 or 4 bits, as image programs write them to save space."""
    file = Image.fromarray(ids)
    file.putpalette([*range(256)] * 3)
    file.save(path, bits=bits)
    content = path.read_bytes()
    header = content[:25] + b"\0" + content[26:29]  # colour type 0: gray
    palette = content.index(b"PLTE") - 4
    length = int.from_bytes(content[palette : palette + 4], "big") + 12
    body = content[33:palette] + content[palette + length :]
    path.write_bytes(header + zlib.crc32(header[12:]).to_bytes(4, "big") + body)


@pytest.mark.parametrize(
    ("kind", "spoil"),
    [
        ("zero-is-void", zero_is_no_data),
        ("zero-is-void", zero_is_no_data_and_not_everywhere),
        ("shades", three_grays),
        ("smoothed-mask", smoothed_mask),
        ("void-id", void_of_minus_1),
        ("palettes", palettes_that_contradict),
        ("palette-colours", palette_in_another_order),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_the_printed_fix_gives_the_right_classes(
    data: Data, run_tool: RunTool, kind: str, spoil: Spoil
) -> None:
    right = spoil(data)
    code, found, out = data.check(run_tool)
    cures = {finding["kind"]: finding["cure"] for finding in found["findings"]}
    assert code == 1 and kind in cures, found["findings"]
    assert cures[kind] in out
    words = follow(cures[kind])
    code, found, out = data.check(run_tool, *words)
    assert (code, found["findings"]) == (0, []), (words, out)
    cfg = load_config(data.config, [*data.words, *words])
    sample = read_list(cfg.train_list, cfg.data_root, has_labels=True)[0]
    assert np.array_equal(load(sample, label_map_of(cfg))[1], right)


def test_ids_of_few_bits_stay(data: Data, run_tool: RunTool) -> None:
    right = mask_of_2_bits(data)
    code, found, _ = data.check(run_tool)
    assert (code, found["findings"]) == (0, [])
    cfg = load_config(data.config)
    sample = read_list(cfg.train_list, cfg.data_root, has_labels=True)[0]
    assert np.array_equal(load(sample, label_map_of(cfg))[1], right)


def one_bit_among_ids(data: Data) -> str:
    Image.fromarray(data.ids(2) > 0).save(data.root / "train/2.png")
    return "mixed-bits"


def mask_among_ids(data: Data) -> str:
    data.write_label("train/2.png", (data.ids(2) * 255).astype(np.uint8))
    return "mask-among-ids"


def half_of_void(data: Data) -> str:
    label = data.ids(3)
    label[HEIGHT // 2 :] = 255
    data.write_label("train/2.png", label)
    return "half-void"


def jpeg_label(data: Data) -> str:
    Image.fromarray(data.ids(3)).save(data.root / "train/2.png", format="JPEG")
    return "coding"


def image_of_16_bits(data: Data) -> str:
    pixels = np.full((HEIGHT, WIDTH, 3), 4000, np.uint16)
    cv2.imwrite(str(data.root / "train/2.png.png"), pixels)
    (data.root / "train/2.png.png").rename(data.root / "train/2.jpg")
    return "coding"


def float_label(data: Data) -> str:
    label = data.ids(3).astype(np.float32) / 3
    Image.fromarray(label).save(data.root / "train/2.png", format="TIFF")
    return "coding"


def see_through_label(data: Data) -> str:
    pixels = np.repeat(data.ids(3)[..., None], 4, -1)
    pixels[..., 3] = data.ids(2) * 255
    data.write_label("train/2.png", pixels)
    return "coding"


def turned_label(data: Data) -> str:
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.open(data.root / "train/2.jpg").save(data.root / "train/2.jpg", exif=exif)
    Image.fromarray(data.ids(3)).save(data.root / "train/2.png", exif=exif)
    return "turned-label"


def turned_image(data: Data) -> str:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(data.root / "train/2.jpg").save(data.root / "train/2.jpg", exif=exif)
    return "coding"


@pytest.mark.parametrize(
    "spoil",
    [
        *(one_bit_among_ids, mask_among_ids, half_of_void, jpeg_label, image_of_16_bits),
        *(float_label, see_through_label, turned_label, turned_image),
    ],
)
def test_file_with_another_encoding_is_named(
    tmp_path: Path, run_tool: RunTool, spoil: Callable[[Data], str]
) -> None:
    data = Data(tmp_path / "my data", train=8)
    kind = spoil(data)
    code, found, _ = data.check(run_tool)
    findings = {finding["kind"]: finding for finding in found["findings"]}
    assert code == 1 and kind in findings, found["findings"]
    assert any("train/2." in name for name in findings[kind]["files"]), findings[kind]
    assert re.search(r"sed -i '3s/\.\*//'", findings[kind]["cure"]), findings[kind]
    words = follow(findings[kind]["cure"])
    code, found, _ = data.check(run_tool, *words)
    assert (code, found["findings"], found["pairs"]["train"]) == (0, [], 7)
