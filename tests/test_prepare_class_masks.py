"""tool/prepare_folder.py on masks of one class each."""

import json
from pathlib import Path

import pytest

from tests.conftest import RunTool
from tests.helpers.own_data import Raw
from tests.helpers.raw_data import write_ids, write_image


@pytest.fixture
def raw(tmp_path: Path, run_tool: RunTool) -> Raw:
    return Raw(tmp_path / "raw", run_tool)


def write(raw: Raw, *names: str) -> None:
    """Write three images; the n-th pixel from the second on is of the n-th class."""
    for i in range(3):
        write_image(raw.root / f"images/{i}.jpg")
        for place, name in enumerate(names, 1):
            write_ids(raw.root / f"masks/{name}/{i}.png", *[0] * place, 255, 0)


def test_a_second_folder_keeps_the_ids(raw: Raw, tmp_path: Path) -> None:
    write(raw, "cat", "dog", "zebra")
    colors = tmp_path / "colors.txt"
    colors.write_text("1 2 3 zebra\n4 5 6 cat\n7 8 9 dog\n")
    assert raw.prepare("--class-folders", "--colors", colors)[0] == 0
    assert raw.label()[0, :5].tolist() == [255, 1, 2, 0, 255]
    assert (tmp_path / "dataset/mine_names.txt").read_text() == "zebra\ncat\ndog\n"
    assert (tmp_path / "dataset/mine_colors.txt").read_text() == "1 2 3\n4 5 6\n7 8 9\n"
    assert raw.prepare("--class-folders", "--colors", colors)[0] == 0  # the same again

    second = Raw(tmp_path / "second", raw.run_tool)
    write(second, "cat", "zebra")
    code, _, err = second.prepare("--class-folders", out="more")
    assert code == 0 and "cat is id 1 in " in err and "but 0 here: give --like " in err
    like = ("--class-folders", "--like", raw.out())
    assert second.prepare(*like, "--strict", out="alike")[0] == 0
    assert second.label(out="alike")[0, :4].tolist() == [255, 1, 0, 255]
    for kind in ("names", "colors"):
        first, other = (tmp_path / f"dataset/{name}_{kind}.txt" for name in ("mine", "alike"))
        assert first.read_text() == other.read_text()
    write(second, "horse")
    second.refused("classes cat, horse, zebra", "zebra, cat, dog", words=like, out="other")
    for i in range(3):
        second.pair(f"flat/{i}.jpg", f"ids/{i}.png", 0, 1)
    words = ("--images", second.root / "flat", "--like", raw.out())
    second.refused("one mask per class", "--names", words=words, out="other", masks="ids")


def test_a_record_without_class_ids_still_counts(raw: Raw, tmp_path: Path) -> None:
    write(raw, "cat", "dog")
    assert raw.prepare("--class-folders")[0] == 0
    path = raw.out() / "prepare_mine.json"
    record = json.loads(path.read_text())
    del record["class_ids"]
    path.write_text(json.dumps(record))
    assert raw.prepare("--class-folders")[0] == 0


def test_options_that_do_not_fit(raw: Raw, tmp_path: Path) -> None:
    write(raw, "cat", "dog")
    raw.refused("--void is for masks of several", words=("--class-folders", "--void", "0"))
    file = tmp_path / "file.txt"
    file.write_text("1 2 3\n4 5 6\n7 8 9\n")
    raw.refused("3 colours", "2 classes (cat, dog)", words=("--class-folders", "--colors", file))
    file.write_text("cat\ndog\ncat\n")
    raw.refused("list each of them once", words=("--class-folders", "--names", file))


def test_background_other_than_0(raw: Raw) -> None:
    write(raw, "cat", "dog")
    write_ids(raw.root / "masks/dog/1.png", 1, 2)
    raw.refused("masks/dog/1.png", "must hold 0 and one other value", words=("--class-folders",))


def test_listed_images_that_differ_in_their_extension(raw: Raw, tmp_path: Path) -> None:
    write(raw, "cat", "dog")
    write_image(raw.root / "images/0.png")
    file = tmp_path / "pairs.txt"
    file.write_text("0.jpg,cat/0.png,cat\n0.png,dog/0.png,dog\n1.jpg,cat/1.png,cat\n")
    raw.refused("line 2: 0.png and 0.jpg differ only in", words=("--pairs", file))


def test_overlaps_are_reported(raw: Raw, tmp_path: Path) -> None:
    write(raw, "cat", "dog", "elk")
    write_ids(raw.root / "masks/cat/1.png", 0, 255, 255, 255)
    write_ids(raw.root / "masks/dog/1.png", 0, 255, 255, 0)
    write_ids(raw.root / "masks/elk/1.png", 0, 255, 0, 255)
    write_ids(raw.root / "masks/dog/2.png", 0, 255, 0)
    code, _, err = raw.prepare("--class-folders")
    assert code == 0 and err.count("warning") == 1
    for part in (
        "masks of different classes overlap in 2 of 3 images (4 pixels",
        "most of all cat and dog (3 pixels",
        "masks/dog/1.png",
        "the higher id",
        "--names",
    ):
        assert part in err, (part, err)
    assert raw.label("1")[0, :4].tolist() == [255, 2, 1, 2]
    raw.refused("--strict: masks of different", words=("--class-folders", "--strict"), out="x")
    (tmp_path / "n.txt").write_text("elk\ndog\ncat\n")
    words = ("--class-folders", "--names", tmp_path / "n.txt")
    assert "most of all dog and cat (3 pixels" in raw.prepare(*words, out="y")[2]
    assert raw.label("1", out="y")[0, :4].tolist() == [255, 2, 2, 2]


def test_a_mask_shared_by_two_images(raw: Raw, tmp_path: Path) -> None:
    write(raw, "cat", "dog")
    file = tmp_path / "pairs.txt"
    lines = "0.jpg,cat/0.png,cat\n1.jpg,cat/0.png,cat\n"
    file.write_text(f"{lines}2.jpg,dog/2.png,dog\n")
    assert raw.prepare("--pairs", file)[0] == 0
    file.write_text(f"{lines}1.jpg,dog/1.png,dog\n")
    raw.refused("cat/0.png belongs to two images", "copy", words=("--pairs", file), out="other")
