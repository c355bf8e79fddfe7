"""tool/prepare_folder.py on folders that define the split, or nearly do."""

from pathlib import Path

import pytest

from tests.conftest import RunTool
from tests.helpers.own_data import Raw
from tests.helpers.raw_data import write_image


@pytest.fixture
def raw(tmp_path: Path, run_tool: RunTool) -> Raw:
    return Raw(tmp_path / "raw", run_tool)


def fill(raw: Raw, *folders: str, count: int = 3) -> None:
    """Write pairs 0, 1, ... to each folder ('' is the top one), named after the folder."""
    for folder in folders:
        for i in range(count):
            name = f"{folder.replace('/', '_')}_{i}"
            raw.pair(f"images/{folder}/{name}.jpg", f"masks/{folder}/{name}.png")


@pytest.mark.parametrize(
    "names",
    [
        ("train2017", "val2017", "test2017"),
        ("train_2012", "val_2012", "test_2012"),
        ("train-images", "valid-images", "testing-images"),
        ("TrainImages", "ValidationSet", "testset"),
        ("images_train", "images_val", "images_test"),
        ("coco/train2017", "coco/val2017", "coco/test2017"),
    ],
)
def test_variants_of_train_and_val(raw: Raw, names: tuple[str, str, str]) -> None:
    fill(raw, *names)
    code, stdout, err = raw.prepare("--strict")
    assert (code, err) == (0, "") and "split: from the folders" in stdout
    for split, folder in zip(("train", "val", "test"), names, strict=True):
        parent, _, name = f"{split}/{folder}".rpartition("/")
        parent = f"{split}/coco" if "coco" in folder else parent
        stem = folder.replace("/", "_")
        assert raw.images(split) == [f"{parent}/{stem}_{i}.jpg" for i in range(3)], name


@pytest.mark.parametrize(
    ("folders", "parts"),
    [
        (("train", "val", "extra"), ("train/ and val/", "extra/")),
        (("train2017", "val2017", "unused"), ("train2017/ and val2017/", "unused/")),
        (("train", "val", ""), ("train/ and val/", "images/_0.jpg")),
        (("train", "test", "train_extra"), ("test/ and train/", "train_extra/")),
        (("trainval", "test"), ("test/", "trainval/")),
        (("train", "bus"), ("train/", "bus/")),
        (("val", "test"), ("test/ and val/", "no train/")),
        (("my_train", "my_val"), ("my_train/ and my_val/", "rename")),
        (("train1", "train2", "val1", "val2"), ("train1/ and val1/", "rename")),
    ],
)
def test_a_split_that_cannot_be_used_is_not_shuffled(
    raw: Raw, folders: tuple[str, ...], parts: tuple[str, ...]
) -> None:
    fill(raw, *folders)
    raw.refused(*parts, "--val-fraction", "--folds")
    assert not raw.out().exists()
    assert raw.prepare("--val-fraction", 0.5)[0] == 0
    count = 3 * len(folders)
    if "test" in folders:  # never becomes training data
        assert raw.images("test") == [f"test/test_{i}.jpg" for i in range(3)]
        count -= 3
    assert len(raw.images("train", "val")) == count
    assert raw.prepare("--folds", 2, out="folds")[0] == 0
    assert len(raw.images("fold1_train", "fold1_val", out="folds")) == count


@pytest.mark.parametrize(
    "folders", [("train",), ("val2017",), ("test",), ("trainval",), ("night train", "value")]
)
def test_other_folders_are_shuffled(raw: Raw, folders: tuple[str, ...]) -> None:
    fill(raw, *folders)
    code, stdout, _ = raw.prepare("--strict")
    assert code == 0 and f"of {3 * len(folders)} pairs for validation, chosen at random" in stdout
    assert len(raw.images("train", "val")) == 3 * len(folders)
    assert not (raw.out() / "list/test.txt").exists()


def test_only_one_pair_besides_test(raw: Raw) -> None:
    fill(raw, "train", count=1)
    fill(raw, "test")
    raw.refused("1 pair outside test/", "at least 2")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("train/a.jpg", "training/a.jpg"),
        ("val/a.jpg", "valid/a.jpg"),
        ("train2014/a.jpg", "train2017/a.png"),  # labels/train/a.png twice
        ("x/train/a.jpg", "train/x/a.jpg"),
    ],
)
def test_two_images_of_the_same_name_below_out(raw: Raw, first: str, second: str) -> None:
    fill(raw, "train", "val")
    for name, ids in ((first, (0, 1)), (second, (1, 0))):
        write_image(raw.root / f"images/{name}")
        raw.pair(f"images/{name}", f"masks/{name[:-4]}.png", *ids)
    raw.refused(f"images/{first}", f"images/{second}", "rename")
    assert not raw.out().exists()
    if Path(first).suffix == Path(second).suffix:
        assert raw.prepare("--folds", 2)[0] == 0  # keeps the folders in the names
