"""tool/prepare_voc2012.py: train_aug from VOC's lists and SBD's files."""

from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from tests.conftest import RunTool, assert_one_sentence
from tests.helpers.raw_data import (
    assert_label,
    files_below,
    ids_of,
    lines_of,
    write_ids,
    write_image,
)
from tool import prepare_voc2012

TRAIN, VAL, SBD = ["2007_1", "2008_2"], ["2007_3"], ["2008_2", "2007_3", "2008_4", "2008_5"]


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """VOC 2012 with palette labels 0, 1, 20 and 255; image 2008_5 is only in SBD."""
    root = tmp_path / "raw/VOCdevkit/VOC2012"
    for name in (*TRAIN, *VAL, "2008_4", "2009_9"):
        write_image(root / f"JPEGImages/{name}.jpg")
    for name in (*TRAIN, *VAL):
        palette = [*range(256)] * 3
        write_ids(root / f"SegmentationClass/{name}.png", 0, 1, 20, 255, palette=palette)
    lists = root / "ImageSets/Segmentation"
    lists.mkdir(parents=True)
    for split, names in (("train", TRAIN), ("val", VAL)):
        (lists / f"{split}.txt").write_text("".join(f"{n}\n" for n in names))
    return root


@pytest.fixture
def sbd(tmp_path: Path) -> Path:
    folder = tmp_path / "benchmark_RELEASE/dataset"
    (folder / "cls").mkdir(parents=True)
    for name in SBD:
        write_mat(folder / f"cls/{name}.mat", ids_of(0, 5, 20))
        write_image(folder / f"img/{name}.jpg")
    (folder / "train.txt").write_text("2008_2\n2008_4\n")
    (folder / "val.txt").write_text("2007_3\n2008_5\n")
    return folder.parent


def write_mat(path: Path, label: np.ndarray) -> None:
    """As SBD: a struct GTcls with Segmentation, Boundaries and CategoriesPresent."""
    present = np.unique(label[label > 0])[:, None]
    parts = {"Boundaries": np.zeros((20, 1)), "CategoriesPresent": present}
    savemat(path, {"GTcls": {"Segmentation": label, **parts}}, do_compression=True)


def check_out(out: Path) -> None:
    assert lines_of(out, "train_aug") == [
        f"images/{name}.jpg labels/{name}.png" for name in ("2007_1", "2008_2", "2008_4", "2008_5")
    ]
    assert lines_of(out, "train") == [f"images/{n}.jpg labels/{n}.png" for n in TRAIN]
    assert lines_of(out, "val") == ["images/2007_3.jpg labels/2007_3.png"]
    for name in (*TRAIN, *VAL):  # VOC's label, even if SBD has one
        assert_label(out / f"labels/{name}.png", 0, 1, 20, 255)
    for name in ("2008_4", "2008_5"):
        assert_label(out / f"labels/{name}.png", 0, 5, 20)


def test_with_sbd(raw: Path, sbd: Path, tmp_path: Path, run_tool: RunTool) -> None:
    before = files_below(raw) | files_below(sbd)
    for folder in (sbd, sbd / "dataset"):
        options = ("--source", raw, "--sbd", folder, "--out", tmp_path / "o")
        code, stdout, err = run_tool("prepare_voc2012", *options)
        assert code == 0 and err.count("warning: ") == 3
        assert "list/train_aug.txt: 4 (official: 10582)" in stdout
        check_out(tmp_path / "o")
    own = tmp_path / "o/images/2007_1.jpg"
    assert own.samefile(raw / "JPEGImages/2007_1.jpg")
    assert (tmp_path / "o/images/2008_5.jpg").samefile(sbd / "dataset/img/2008_5.jpg")
    assert files_below(raw) | files_below(sbd) == before


def test_sbd_is_found_in_the_source(
    raw: Path, sbd: Path, tmp_path: Path, run_tool: RunTool
) -> None:
    sbd.rename(tmp_path / "raw/benchmark_RELEASE")
    code, _, _ = run_tool("prepare_voc2012", "--source", tmp_path / "raw", "--out", tmp_path / "o")
    assert code == 0
    check_out(tmp_path / "o")


def test_with_a_ready_folder(raw: Path, tmp_path: Path, run_tool: RunTool) -> None:
    write_image(raw / "JPEGImages/2008_5.jpg")
    for name in {*TRAIN, *SBD}:
        write_ids(raw / f"SegmentationClassAug/{name}.png", 0, 5, 20)
    for more in ((), ("--sbd", raw / "SegmentationClassAug")):
        options = ("--source", raw, "--out", tmp_path / "o", *more)
        assert run_tool("prepare_voc2012", *options)[0] == 0
        check_out(tmp_path / "o")


def test_beside_the_raw_data(raw: Path, sbd: Path, run_tool: RunTool) -> None:
    before = files_below(raw)
    for _ in range(2):
        code, _, _ = run_tool("prepare_voc2012", "--source", raw, "--sbd", sbd, "--out", raw)
        assert code == 0
    assert {k: v for k, v in files_below(raw).items() if k in before} == before
    lines = lines_of(raw, "train_aug")
    assert lines[0] == "JPEGImages/2007_1.jpg labels/2007_1.png"
    assert lines[3] == "images/2008_5.jpg labels/2008_5.png"


def test_missing_sbd_is_reported(raw: Path, tmp_path: Path, run_tool: RunTool) -> None:
    options = ("--source", raw, "--out", tmp_path / "o")
    code, _, err = run_tool("prepare_voc2012", *options, "--strict")
    assert_one_sentence(code, err, "no list/train_aug.txt without SBD", "--sbd")
    code, _, err = run_tool("prepare_voc2012", *options)
    assert code == 0 and "warning: no list/train_aug.txt" in err
    assert not (tmp_path / "o/list/train_aug.txt").exists()
    assert len(lines_of(tmp_path / "o", "train")) == 2


def test_missing_images_are_left_out(
    raw: Path, sbd: Path, tmp_path: Path, run_tool: RunTool
) -> None:
    (sbd / "dataset/img/2008_5.jpg").unlink()
    options = ("--source", raw, "--sbd", sbd, "--out", tmp_path / "o")
    code, _, err = run_tool("prepare_voc2012", *options)
    assert code == 0 and "train_aug: 1 entries skipped" in err and "2008_5" in err
    assert len(lines_of(tmp_path / "o", "train_aug")) == 3


def test_mistakes_are_reported(raw: Path, sbd: Path, tmp_path: Path, run_tool: RunTool) -> None:
    options = ("--source", raw, "--sbd", sbd, "--out", tmp_path / "o")
    mat = sbd / "dataset/cls/2008_4.mat"
    write_mat(mat, ids_of(0, 21))
    code, _, err = run_tool("prepare_voc2012", *options)
    assert code == 2 and f"{mat} holds id 21 (1 pixels): VOC's classes are 0..20" in err
    mat.write_bytes(b"no matlab")
    code, _, err = run_tool("prepare_voc2012", *options)
    assert code == 2 and f"{mat} is not an SBD label file" in err
    (sbd / "dataset/cls").rename(sbd / "dataset/class")
    code, _, err = run_tool("prepare_voc2012", *options)
    assert_one_sentence(code, err, "no folder cls", "--sbd")
    (raw / "ImageSets/Segmentation/val.txt").unlink()
    code, _, err = run_tool("prepare_voc2012", *options)
    assert_one_sentence(code, err, "no list", "ImageSets/Segmentation/val.txt")


def test_official_counts() -> None:
    assert prepare_voc2012.OFFICIAL == {"train_aug": 10582, "train": 1464, "val": 1449}
