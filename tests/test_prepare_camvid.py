"""tool/prepare_camvid.py: two layouts with the same result."""

from pathlib import Path

import pytest

from tests.conftest import ROOT, RunTool, assert_one_sentence
from tests.helpers.raw_data import assert_label, lines_of, write_colors, write_ids, write_image
from tool import prepare_camvid


def test_segnet_layout(tmp_path: Path, run_tool: RunTool) -> None:
    raw, out = tmp_path / "raw/CamVid", tmp_path / "o"
    for split, names in (("train", ("a", "b")), ("val", ("c",)), ("test", ("d",))):
        for name in names:
            write_image(raw / split / f"{name}.png")
            write_ids(raw / f"{split}annot" / f"{name}.png", *range(12))
    code, _, err = run_tool("prepare_camvid", "--source", raw.parent, "--out", out)
    assert code == 0 and err.count("warning: ") == 3
    assert lines_of(out, "train") == [
        "images/train/a.png labels/train/a.png",
        "images/train/b.png labels/train/b.png",
    ]
    assert lines_of(out, "val") == ["images/val/c.png labels/val/c.png"]
    assert lines_of(out, "test") == ["images/test/d.png labels/test/d.png"]
    assert_label(out / "labels/train/a.png", *range(11), 255)
    assert (out / "images/train/a.png").samefile(raw / "train/a.png")


ORIGINAL = {  # frame -> split
    "0001TP_006690": "train",
    "0001TP_008520": "train",
    "0001TP_008550": "test",
    "0006R0_f00930": "train",
    "0016E5_00390": "train",
    "0016E5_07959": "val",
    "0016E5_08159": "val",
    "0016E5_08190": "train",
    "Seq05VD_f00000": "test",
}


@pytest.fixture
def original(tmp_path: Path) -> Path:
    raw = tmp_path / "raw"
    colors = [color for group in prepare_camvid.COLORS.values() for color in group]
    for name in ORIGINAL:
        write_image(raw / f"701_StillsRaw_full/{name}.png")
        write_colors(raw / f"LabeledApproved_full/{name}_L.png", *colors)
    return raw


def test_original_layout(original: Path, tmp_path: Path, run_tool: RunTool) -> None:
    out = tmp_path / "o"
    assert run_tool("prepare_camvid", "--source", original, "--out", out)[0] == 0
    for split in ("train", "val", "test"):
        names = sorted(name for name, its in ORIGINAL.items() if its == split)
        assert lines_of(out, split) == [
            f"images/{split}/{n}.png labels/{split}/{n}.png" for n in names
        ]
    groups = prepare_camvid.COLORS.items()
    assert_label(out / "labels/val/0016E5_07959.png", *(i for i, group in groups for _ in group))


def test_32_colors_fall_into_11_classes() -> None:
    names = (ROOT / "dataset/camvid_names.txt").read_text().split()
    assert len(prepare_camvid.COLOR_TABLE) == 32
    assert [*prepare_camvid.COLORS] == [*range(len(names)), 255]
    for color, name in (
        ((128, 128, 128), "Sky"),
        ((192, 192, 0), "Tree"),
        ((128, 64, 64), "Car"),
        ((192, 0, 192), "Bicyclist"),
        ((0, 64, 64), "SignSymbol"),
    ):
        assert color in prepare_camvid.COLORS[names.index(name)]
    assert prepare_camvid.OFFICIAL == {"train": 367, "val": 101, "test": 233}


def test_mistakes_are_reported(original: Path, tmp_path: Path, run_tool: RunTool) -> None:
    options = ("--source", original, "--out", tmp_path / "o")
    label = write_colors(original / "LabeledApproved_full/0006R0_f00930_L.png", (1, 2, 3))
    code, _, err = run_tool("prepare_camvid", *options)
    assert code == 2 and f"{label} holds colour 1 2 3 (48 pixels)" in err
    write_image(original / "701_StillsRaw_full/holiday.png")
    code, _, err = run_tool("prepare_camvid", *options)
    assert_one_sentence(code, err, "holiday is not a CamVid frame")
    (original / "LabeledApproved_full").rename(original / "labels")
    code, _, err = run_tool("prepare_camvid", *options)
    assert_one_sentence(code, err, "no folder LabeledApproved_full", "0001TP_006690_L.png")
    code, _, err = run_tool("prepare_camvid", "--source", tmp_path, "--out", tmp_path / "o")
    assert_one_sentence(
        code, err, "no folder train", "trainannot/0001TP_006690.png", "LabeledApproved_full"
    )
