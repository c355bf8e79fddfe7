"""tool/prepare_bdd100k.py: two tasks, each in the current layout and that of 2018."""

from pathlib import Path

import pytest

from tests.conftest import RunTool, assert_one_sentence
from tests.helpers.raw_data import assert_label, lines_of, write_ids, write_image
from tool import prepare_bdd100k

SEMANTIC = (*range(19), 255)


def build(root: Path, images: str, labels: str, ending: str, *values: int) -> Path:
    for split, names in (("train", ("a-1", "b-2")), ("val", ("c-3",)), ("test", ("d-4",))):
        for name in names:
            write_image(root / images / split / f"{name}.jpg")
            if split != "test":
                write_ids(root / labels / split / f"{name}{ending}", *values)
    return root


@pytest.mark.parametrize(
    ("task", "images", "labels", "ending", "values", "wanted"),
    [
        ("semantic", "images/10k", "labels/sem_seg/masks", ".png", SEMANTIC, SEMANTIC),
        ("semantic", "seg/images", "seg/labels", "_train_id.png", SEMANTIC, SEMANTIC),
        ("drivable", "images/100k", "labels/drivable/masks", ".png", (0, 1, 2), (0, 1, 2)),
        (
            "drivable",
            "images/100k",
            "drivable_maps/labels",
            "_drivable_id.png",
            (0, 1, 2),
            (2, 0, 1),
        ),
    ],
)
def test_ids_and_lists(
    tmp_path: Path,
    run_tool: RunTool,
    task: str,
    images: str,
    labels: str,
    ending: str,
    values: tuple[int, ...],
    wanted: tuple[int, ...],
) -> None:
    raw, out = build(tmp_path / "raw/bdd100k", images, labels, ending, *values), tmp_path / "o"
    code, _, err = run_tool("prepare_bdd100k", "--source", raw.parent, "--out", out, "--task", task)
    assert code == 0 and err.count("warning: ") == 3
    assert lines_of(out, "train") == [
        f"images/train/{n}.jpg labels/train/{n}.png" for n in ("a-1", "b-2")
    ]
    assert lines_of(out, "val") == ["images/val/c-3.jpg labels/val/c-3.png"]
    assert lines_of(out, "test") == ["images/test/d-4.jpg"]
    assert (out / "images/test/d-4.jpg").samefile(raw / images / "test/d-4.jpg")
    assert_label(out / "labels/train/a-1.png", *wanted)


def test_mistakes_are_reported(tmp_path: Path, run_tool: RunTool) -> None:
    raw = build(tmp_path / "raw", "images/10k", "labels/sem_seg/masks", ".png", 0, 19)
    options = ("--source", raw, "--out", tmp_path / "o")
    code, _, err = run_tool("prepare_bdd100k", *options)
    assert code == 2 and "holds id 19 (1 pixels): masks of labels/sem_seg/masks hold" in err
    code, _, err = run_tool("prepare_bdd100k", *options, "--task", "drivable")
    assert_one_sentence(code, err, "no folder images/100k/train", "labels/drivable/masks/train")


def test_official_counts() -> None:
    assert prepare_bdd100k.OFFICIAL["semantic"] == {"train": 7000, "val": 1000, "test": 2000}
    assert prepare_bdd100k.OFFICIAL["drivable"] == {"train": 70000, "val": 10000, "test": 20000}
