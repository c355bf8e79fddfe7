"""tool/prepare_ade20k.py, and what all preparation tools share."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import ROOT, RunTool, assert_one_sentence, command
from tests.helpers.raw_data import (
    assert_label,
    files_below,
    lines_of,
    write_ade20k,
)
from tool import prepare_ade20k
from util.data.list_file import read_list
from util.extra.parallel import in_threads

OFFICIAL = {"training": 2, "validation": 1}


@pytest.fixture
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The benchmark with two training images and one to validate, as if these were all."""
    monkeypatch.setattr(prepare_ade20k, "OFFICIAL", OFFICIAL)
    return write_ade20k(tmp_path / "raw/ADEChallengeData2016", OFFICIAL)


def test_ids_lists_and_links(raw: Path, tmp_path: Path, run_tool: RunTool) -> None:
    before, out = files_below(raw), tmp_path / "ade20k"
    code, stdout, err = run_tool("prepare_ade20k", "--source", raw, "--out", out, "--strict")
    assert (code, err) == (0, "")
    assert "list/training.txt: 2 (official: 2)" in stdout
    assert lines_of(out, "training") == [
        f"images/training/ADE_train_0000000{i}.jpg labels/training/ADE_train_0000000{i}.png"
        for i in (1, 2)
    ]
    assert lines_of(out, "validation") == [
        "images/validation/ADE_val_00000001.jpg labels/validation/ADE_val_00000001.png"
    ]
    assert_label(out / "labels/training/ADE_train_00000002.png", 255, 0, 1, 148, 149, 1)
    image = out / "images/training/ADE_train_00000001.jpg"
    assert image.is_symlink() and image.samefile(raw / "images/training/ADE_train_00000001.jpg")
    assert files_below(raw) == before
    assert len(read_list(out / "list/training.txt", out, has_labels=True)) == 2


def test_table_and_official_numbers() -> None:
    assert dict(prepare_ade20k.TABLE) == {0: 255, **{i: i - 1 for i in range(1, 151)}}
    assert prepare_ade20k.OFFICIAL == {"training": 20210, "validation": 2000}


@pytest.mark.parametrize(
    ("name", "classes"),
    [
        ("ade20k", 150),
        ("voc2012", 21),
        ("cityscapes", 19),
        ("camvid", 11),
        ("bdd100k", 19),
        ("bdd100k_drivable", 3),
    ],
)
def test_every_class_has_a_name_and_a_color(name: str, classes: int) -> None:
    names = (ROOT / f"dataset/{name}_names.txt").read_text().splitlines()
    colors = np.loadtxt(ROOT / f"dataset/{name}_colors.txt", dtype=int)
    assert len(set(names)) == len(names) == classes and all(names)
    assert colors.shape == (classes, 3) and colors.min() >= 0 and colors.max() <= 255


def test_folder_above_the_benchmark_is_fine(raw: Path, tmp_path: Path, run_tool: RunTool) -> None:
    code, _, _ = run_tool("prepare_ade20k", "--source", raw.parent, "--out", tmp_path / "o")
    assert code == 0 and len(lines_of(tmp_path / "o", "training")) == 2


def test_rerun_changes_nothing_and_restores_missing_files(
    raw: Path, tmp_path: Path, run_tool: RunTool
) -> None:
    options, out = ("--source", raw, "--out", tmp_path / "o"), tmp_path / "o"
    run_tool("prepare_ade20k", *options)
    before = files_below(out)
    times = {p: p.stat().st_mtime_ns for p in out.rglob("*")}
    code, stdout, _ = run_tool("prepare_ade20k", *options)
    assert code == 0 and "label maps: 0 written, 3 already there" in stdout
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*")} == times
    for name in (
        "labels/training/ADE_train_00000001.png",
        "list/training.txt",
        "images/validation/ADE_val_00000001.jpg",
    ):
        (out / name).unlink()
    code, stdout, _ = run_tool("prepare_ade20k", *options)
    assert code == 0 and "label maps: 1 written, 2 already there" in stdout
    assert files_below(out) == before


def test_interrupted_run_leaves_no_list_and_no_half_file(
    raw: Path, tmp_path: Path, run_tool: RunTool, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, save, saved = tmp_path / "o", Image.Image.save, []

    def stop(self: Image.Image, path: Path, **options: object) -> None:
        saved.append(path)
        if len(saved) == 2:
            Path(path).write_bytes(b"half a file")
            raise KeyboardInterrupt
        save(self, path, **options)

    monkeypatch.setattr(Image.Image, "save", stop)
    code, _, _ = run_tool("prepare_ade20k", "--source", raw, "--out", out)
    assert code == 130
    assert not (out / "list").exists()
    labels = [*out.glob("labels/*/*")]
    assert 1 <= len(labels) < 3 and all(Image.open(path).load() for path in labels)
    monkeypatch.setattr(Image.Image, "save", save)
    code, _, _ = run_tool("prepare_ade20k", "--source", raw, "--out", out)
    assert code == 0
    assert_label(out / "labels/training/ADE_train_00000002.png", 255, 0, 1, 148, 149, 1)
    assert not [p for p in out.rglob(".*")]


def test_copy(raw: Path, tmp_path: Path, run_tool: RunTool) -> None:
    options = ("--source", raw, "--out", tmp_path / "o", "--copy")
    assert run_tool("prepare_ade20k", *options)[0] == 0
    assert run_tool("prepare_ade20k", *options)[0] == 0
    image = tmp_path / "o/images/training/ADE_train_00000001.jpg"
    assert not image.is_symlink()
    assert image.read_bytes() == (raw / "images/training/ADE_train_00000001.jpg").read_bytes()
    code, _, err = run_tool("prepare_ade20k", *options[:-1])
    assert_one_sentence(code, err, "prepared with copy True (requested: False)", "another --out")
    image.write_bytes(bytes(image.stat().st_size))  # changed, but of the same size
    code, _, err = run_tool("prepare_ade20k", *options)
    assert_one_sentence(code, err, f"{image} holds another image")


def test_without_symlinks_the_message_names_copy(
    raw: Path, tmp_path: Path, run_tool: RunTool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    code, _, err = run_tool("prepare_ade20k", "--source", raw, "--out", tmp_path / "o")
    assert_one_sentence(code, err, "cannot link", "use --copy")


def test_counts_warn_or_with_strict_stop(
    raw: Path, tmp_path: Path, run_tool: RunTool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare_ade20k, "OFFICIAL", {"training": 3, "validation": 1})
    (raw / "images/training/ADE_train_00000009.jpg").write_bytes(b"")
    options = ("--source", raw, "--out", tmp_path / "o")
    code, _, err = run_tool("prepare_ade20k", *options, "--strict")
    assert_one_sentence(code, err, "--strict: training: 1 image without a label", "(and 1 more)")
    assert not (tmp_path / "o").exists()
    code, stdout, err = run_tool("prepare_ade20k", *options)
    assert code == 0 and "list/training.txt: 2 (official: 3)" in stdout
    assert err.count("warning: ") == err.count("\n") == 2
    assert "ade20k training has 2 images instead of the official 3" in err


def test_hidden_files_of_archives_are_no_images(
    raw: Path, tmp_path: Path, run_tool: RunTool
) -> None:
    (raw / "images/training/._ADE_train_00000001.jpg").write_bytes(b"Mac OS X")
    code, _, err = run_tool("prepare_ade20k", "--source", raw, "--out", tmp_path / "o", "--strict")
    assert (code, err) == (0, "")


def test_workers_stop_at_the_first_error() -> None:
    def work(i: int) -> int:
        return 1 // (i - 3)

    with pytest.raises(ZeroDivisionError):
        in_threads(work, range(1000), "numbers")
    assert in_threads(abs, [-2, 1], "numbers") == [2, 1]


def test_as_a_command_from_another_folder(tmp_path: Path) -> None:
    tool = ROOT / "tool/prepare_ade20k.py"
    done = command(sys.executable, tool, "--source", "no", "--out", "o", cwd=tmp_path)
    assert_one_sentence(done.returncode, done.stderr, "--source no is not a folder")
