"""What prepare_ade20k.py rejects, and what it does not overwrite."""

import os
from pathlib import Path

import pytest

from tests.conftest import RunTool, assert_one_sentence
from tests.helpers.raw_data import files_below, write_ade20k, write_ids, write_image
from tool import prepare_ade20k
from util.data.list_file import read_list

OFFICIAL = {"training": 2, "validation": 1}


@pytest.fixture
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The benchmark with two training images and one to validate, as if these were all."""
    monkeypatch.setattr(prepare_ade20k, "OFFICIAL", OFFICIAL)
    return write_ade20k(tmp_path / "raw/ADEChallengeData2016", OFFICIAL)


def test_out_is_a_link_to_the_raw_data(raw: Path, tmp_path: Path, run_tool: RunTool) -> None:
    before, out = files_below(raw), tmp_path / "ade20k"
    out.symlink_to(raw)
    for _ in range(2):
        code, _, err = run_tool("prepare_ade20k", "--source", raw, "--out", out)
        assert (code, err) == (0, "")
    after = files_below(raw)
    assert {name: after[name] for name in before} == before
    assert sorted(set(after) - set(before)) == [
        "labels/training/ADE_train_00000001.png",
        "labels/training/ADE_train_00000002.png",
        "labels/validation/ADE_val_00000001.png",
        "list/training.txt",
        "list/validation.txt",
        "prepare_ade20k.json",
    ]
    assert not any(p.is_symlink() for p in raw.rglob("*"))
    assert len(read_list(out / "list/training.txt", out, has_labels=True)) == 2


@pytest.mark.parametrize("name", ["list/training.txt", "labels/validation/ADE_val_00000001.png"])
def test_raw_files_of_the_same_name_are_not_overwritten(
    raw: Path, run_tool: RunTool, name: str
) -> None:
    write_ids(raw / name.replace(".txt", ".png"), 9)
    if name.endswith(".txt"):
        (raw / name.replace(".txt", ".png")).rename(raw / name)
        (raw / name).write_text("mine\n")
    before = (raw / name).read_bytes()
    code, _, err = run_tool("prepare_ade20k", "--source", raw, "--out", raw)
    assert_one_sentence(code, err, str(raw / name), "another --out")
    assert (raw / name).read_bytes() == before


def test_foreign_out_is_refused(raw: Path, tmp_path: Path, run_tool: RunTool) -> None:
    out = tmp_path / "o"
    out.mkdir()
    (out / "mine.txt").write_text("precious")
    code, _, err = run_tool("prepare_ade20k", "--source", raw, "--out", out)
    assert_one_sentence(code, err, str(out), "mine.txt", "choose another --out")
    assert files_below(out) == {"mine.txt": b"precious"}
    code, _, err = run_tool("prepare_ade20k", "--source", raw, "--out", out / "mine.txt")
    assert_one_sentence(code, err, "is a file, not a folder")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    code, _, err = run_tool("prepare_ade20k", "--source", raw, "--out", tmp_path / "link")
    assert_one_sentence(code, err, "is a broken link to")


def test_other_source_or_damaged_record_is_refused(
    raw: Path, tmp_path: Path, run_tool: RunTool
) -> None:
    out, other = tmp_path / "o", tmp_path / "other"
    run_tool("prepare_ade20k", "--source", raw, "--out", out)
    os.rename(raw, other)
    code, _, err = run_tool("prepare_ade20k", "--source", other, "--out", out)
    assert_one_sentence(code, err, "was prepared with source", str(other), "remove the folder")
    (out / "prepare_ade20k.json").write_text("{")
    code, _, err = run_tool("prepare_ade20k", "--source", other, "--out", out)
    assert_one_sentence(code, err, "prepare_ade20k.json is damaged")


def test_wrong_source_names_what_is_missing(raw: Path, tmp_path: Path, run_tool: RunTool) -> None:
    out = tmp_path / "o"
    code, _, err = run_tool("prepare_ade20k", "--source", tmp_path / "nothing", "--out", out)
    assert_one_sentence(code, err, "--source", "nothing is not a folder")
    (raw / "annotations").rename(raw / "other")
    (raw / "annotations.zip").write_bytes(b"")
    code, _, err = run_tool("prepare_ade20k", "--source", raw, "--out", out)
    assert_one_sentence(
        code,
        err,
        f"no folder annotations/training, annotations/validation in {raw}",
        f"{raw}/images/training/ADE_train_00000001.jpg",
        "unpack annotations.zip first",
    )
    assert not out.exists()


@pytest.mark.parametrize(
    "mark", ["index_ade20k.pkl", "ADE20K_2021_17_01/images/ADE/training/urban/street/a_seg.png"]
)
def test_full_release_is_rejected_with_a_message(
    tmp_path: Path, run_tool: RunTool, mark: str
) -> None:
    (tmp_path / "raw" / mark).parent.mkdir(parents=True)
    (tmp_path / "raw" / mark).write_bytes(b"")
    code, _, err = run_tool("prepare_ade20k", "--source", tmp_path / "raw", "--out", tmp_path / "o")
    assert_one_sentence(code, err, "full ADE20K release", "ADEChallengeData2016.zip")


def test_bad_labels_stop_with_the_file(raw: Path, tmp_path: Path, run_tool: RunTool) -> None:
    label = raw / "annotations/validation/ADE_val_00000001.png"
    options = ("--source", raw, "--out", tmp_path / "o")
    write_ids(label, 1, 255, 255)
    code, _, err = run_tool("prepare_ade20k", *options)
    assert_one_sentence(code, err, str(label), "id 255 (2 pixels)", "converted already?")
    label.write_bytes(b"no image")
    code, _, err = run_tool("prepare_ade20k", *options)
    assert_one_sentence(code, err, str(label), "damaged or not an image")
    write_ids(label, 1)
    write_image(raw / "images/validation/ADE_val_00000001.jpg", size=(5, 5))
    code, _, err = run_tool("prepare_ade20k", *options)
    assert_one_sentence(code, err, "is 5x5", "is 8x6", "must have the same size")
    assert not (tmp_path / "o/list").exists()


def test_no_pairs(raw: Path, tmp_path: Path, run_tool: RunTool) -> None:
    for label in raw.glob("annotations/*/*"):
        label.unlink()
    code, _, err = run_tool("prepare_ade20k", "--source", raw, "--out", tmp_path / "o")
    assert code == 2 and "no image with a label of the same name" in err
    assert not (tmp_path / "o").exists()
