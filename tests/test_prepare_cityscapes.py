"""tool/prepare_cityscapes.py: 34 raw ids to 19 train ids under the official names."""

from pathlib import Path

import pytest

from tests.conftest import RunTool, assert_one_sentence
from tests.helpers.raw_data import assert_label, files_below, lines_of, write_ids, write_image
from tool import prepare_cityscapes

# Train id of every raw id: the 15 that are not scored are void.
V = 255
TRAIN_IDS = [V] * 7 + [0, 1, V, V, 2, 3, 4, V, V, V, 5, V, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]
TRAIN_IDS += [V, V, 16, 17, 18]


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    root = tmp_path / "cityscapes"
    for split, city, count in (("train", "aachen", 2), ("train", "ulm", 1), ("val", "munster", 1)):
        for i in range(count):
            name = f"{city}_00000{i}_000019"
            write_image(root / "leftImg8bit" / split / city / f"{name}_leftImg8bit.png")
            folder = root / "gtFine" / split / city
            write_ids(folder / f"{name}_gtFine_labelIds.png", *range(34))
            write_ids(folder / f"{name}_gtFine_color.png", 77)
            write_ids(folder / f"{name}_gtFine_instanceIds.png", 77)
    write_image(root / "leftImg8bit/test/berlin/berlin_000000_000019_leftImg8bit.png")
    write_ids(root / "gtFine/test/berlin/berlin_000000_000019_gtFine_labelIds.png", 3)
    return root


def test_ids_lists_and_names(raw: Path, tmp_path: Path, run_tool: RunTool) -> None:
    before, out = files_below(raw), tmp_path / "o"
    code, _, err = run_tool("prepare_cityscapes", "--source", raw, "--out", out)
    assert code == 0 and err.count("warning: ") == 3
    assert lines_of(out, "fine_train") == [
        f"leftImg8bit/train/{city}/{name}_leftImg8bit.png "
        f"gtFine/train/{city}/{name}_gtFine_labelTrainIds.png"
        for city, name in (
            ("aachen", "aachen_000000_000019"),
            ("aachen", "aachen_000001_000019"),
            ("ulm", "ulm_000000_000019"),
        )
    ]
    assert len(lines_of(out, "fine_val")) == 1
    test = "leftImg8bit/test/berlin/berlin_000000_000019_leftImg8bit.png"
    assert lines_of(out, "fine_test") == [test] and (out / test).is_file()
    label = out / lines_of(out, "fine_train")[0].split()[1]
    assert_label(label, *TRAIN_IDS)
    assert files_below(raw) == before


def test_beside_the_raw_data(raw: Path, run_tool: RunTool) -> None:
    before = files_below(raw)
    for _ in range(2):
        assert run_tool("prepare_cityscapes", "--source", raw, "--out", raw)[0] == 0
    after = files_below(raw)
    assert {name: after[name] for name in before} == before
    new = sorted(set(after) - set(before))
    assert sum(name.endswith("_gtFine_labelTrainIds.png") for name in new) == 4
    assert len(new) == 4 + 3 + 1


def test_missing_part_and_wrong_ids(raw: Path, tmp_path: Path, run_tool: RunTool) -> None:
    label = raw / "gtFine/val/munster/munster_000000_000019_gtFine_labelIds.png"
    write_ids(label, 7, 40)
    code, _, err = run_tool("prepare_cityscapes", "--source", raw, "--out", tmp_path / "o")
    assert code == 2 and f"{label} holds id 40 (1 pixels): labelIds files hold 0..33" in err
    (raw / "gtFine").rename(raw / "gtfine_old")
    code, _, err = run_tool("prepare_cityscapes", "--source", raw, "--out", tmp_path / "p")
    assert_one_sentence(code, err, "no folder gtFine/train", "_gtFine_labelIds.png")


def test_official_counts() -> None:
    assert prepare_cityscapes.OFFICIAL == {"fine_train": 2975, "fine_val": 500, "fine_test": 1525}
