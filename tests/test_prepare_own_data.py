"""tool/prepare_folder.py on real-world names, folders and masks."""

import unicodedata
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import RunTool
from tests.helpers.own_data import BLUE, GREEN, RED, Raw
from tests.helpers.raw_data import assert_label, lines_of, write_ids, write_image
from util.config import load_config
from util.data.list_file import read_list
from util.palette import load_colors, load_names


@pytest.fixture
def raw(tmp_path: Path, run_tool: RunTool) -> Raw:
    return Raw(tmp_path / "raw", run_tool)


@pytest.mark.parametrize(
    "names", [("train", "val"), ("training", "validation"), ("Train", "valid")]
)
def test_train_and_val_folders_are_kept(raw: Raw, names: tuple[str, str]) -> None:
    for folder, count in zip(names, (3, 2), strict=True):
        for i in range(count):
            raw.pair(f"images/{folder}/{folder}_{i}.jpg", f"masks/{folder}/{folder}_{i}.png")
    raw.pair("images/test/t.jpg", "masks/test/t.png")
    code, stdout, err = raw.prepare("--strict")
    assert (code, err) == (0, "") and "split: from the folders train/ and val/" in stdout
    assert raw.images("train") == [f"train/{names[0]}_{i}.jpg" for i in range(3)]
    assert raw.images("val") == [f"val/{names[1]}_{i}.jpg" for i in range(2)]
    assert raw.images("test") == ["test/t.jpg"]
    assert raw.prepare("--val-fraction", 0.4, out="anew")[0] == 0
    assert len(raw.images("val", out="anew")) == 2 and len(raw.images("test", out="anew")) == 1


def test_linked_subfolders_are_followed_and_loops_are_not(raw: Raw) -> None:
    raw.pair("images/day.jpg", "masks/day.png")
    raw.pair("disk/images/far.jpg", "disk/masks/far.png")
    for place in ("images", "masks"):
        (raw.root / place / "night").symlink_to(f"../disk/{place}")
        (raw.root / place / "self").symlink_to(".")
        (raw.root / place / "up").symlink_to("..")
    assert raw.prepare("--strict")[0] == 0
    assert sorted(Path(name).name for name in raw.images("train", "val")) == ["day.jpg", "far.jpg"]


@pytest.mark.parametrize(
    ("image", "mask", "words"),
    [
        ("images/{0}.jpg", "masks/{0}_mask.gif", ("--mask-suffix", "_mask")),  # Carvana
        ("images/{0}_sat.jpg", "masks/{0}_mask.png", ()),
        ("both/{0}_sat.jpg", "both/{0}_mask.png", ("--mask-suffix", "_mask")),  # DeepGlobe
        ("both/{0}_sat.jpg", "both/{0}_mask.png", ("--pair", "*_sat", "*_mask")),
        ("both/{0}.jpg", "both/{0}.png", ("--pair", "*.jpg", "*.png")),
        ("images/img_{0}.jpg", "masks/mask_{0}.png", ()),
        ("images/img{0}.jpg", "masks/labels{0}.png", ()),
        ("images/{0}.jpg", "masks/{0}.jpg.png", ()),  # Supervisely
        ("images/0a1b2c{0}-photo {0}.jpg", "masks/photo {0}.png", ()),  # Label Studio's uploads
        ("images/IMG_{0}.JPG", "masks/img_{0}.png", ()),
        ("images/day/{0}.jpg", "masks/{0}.png", ()),
    ],
)
def test_names_are_paired(raw: Raw, image: str, mask: str, words: tuple[str, ...]) -> None:
    for i in (10, 11, 12):
        raw.pair(image.format(i), mask.format(i), 0, *range(1, i - 8))
    both = {"images": "both", "masks": "both"} if image.startswith("both") else {}
    code, stdout, err = raw.prepare("--strict", *words, **both)
    assert code == 0 and "pairs: 3, such as" in stdout, err
    for line in lines_of(raw.out(), "train") + lines_of(raw.out(), "val"):
        name, label = line.split(" labels/")
        i = next(i for i in (10, 11, 12) if f"{i}" in name.replace("0a1b2c", ""))
        assert_label(raw.out() / "labels" / label, 0, *range(1, i - 8))


def test_names_that_do_not_pair_name_the_option(raw: Raw) -> None:
    for i in range(3):
        raw.pair(f"images/a{i}.jpg", f"masks/task-{i}-annotation-{i}-by-1-tag-road-0.png")
    raw.refused("0 pairs", "Label Studio", "--pairs FILE")
    for i, path in enumerate(sorted((raw.root / "masks").iterdir())):
        path.rename(path.with_name("xyz"[i] * (i + 1) + ".png"))
    raw.refused("0 pairs", "--pair 'img_*' '*_mask'", "--pairs FILE")
    for i in range(3):
        for name in ("car", "road"):
            write_ids(raw.root / f"classes/{name}/a{i}.png", 0, 255)
    raw.refused("if car and road are classes, give --class-folders", masks="classes")
    raw.refused("must contain one *", words=("--pair", "a", "*b"))


def test_a_folder_for_each_class(raw: Raw, tmp_path: Path) -> None:
    for i in range(3):
        write_image(raw.root / f"images/{i}.jpg")
        write_ids(raw.root / f"masks/road/{i}.png", 0, 255, 255, 0)
        write_ids(raw.root / f"masks/car/{i}.png", 0, 0, 255, 255)
    code, stdout, err = raw.prepare("--class-folders")
    assert code == 0 and "classes: 2 (car, road); void: pixels without a class" in stdout, err
    assert raw.label()[0, :5].tolist() == [255, 1, 1, 0, 255]
    (tmp_path / "n.txt").write_text("road\ncar\n")
    assert raw.prepare("--class-folders", "--names", tmp_path / "n.txt", out="other")[0] == 0
    assert raw.label(out="other")[0, :5].tolist() == [255, 0, 1, 1, 255]
    (tmp_path / "n.txt").write_text("road\nsky\n")
    more = ("--class-folders", "--names", tmp_path / "n.txt")
    raw.refused("have the classes car, road, but", words=more, out="third")
    write_ids(raw.root / "masks/car/0.png", 0, 1, 2)
    more = ("--class-folders", "--like", raw.out())
    raw.refused("masks/car/0.png", "0 and one other value", words=more, out="third")


def test_pairs_of_a_file(raw: Raw, tmp_path: Path) -> None:
    for i in range(3):
        raw.pair(f"images/a {i}.jpg", f"masks/task-{i}.png", 0, 1, 1)
        write_ids(raw.root / f"masks/car-{i}.png", 0, 0, 9)
    file = tmp_path / "pairs.txt"
    file.write_text("".join(f"a {i}.jpg\ttask-{i}.png\n\n" for i in range(3)))
    assert raw.prepare("--pairs", file)[0] == 0
    assert raw.label("a 0")[0, :3].tolist() == [0, 1, 1]
    lines = "".join(f"a {i}.jpg,task-{i}.png,road\na {i}.jpg,car-{i}.png,car\n" for i in range(3))
    file.write_text(lines)
    assert raw.prepare("--pairs", file, out="classes")[0] == 0
    assert raw.label("a 0", out="classes")[0, :3].tolist() == [255, 1, 1]
    for text, *parts in (
        ("a 0.jpg\tnone.png\n", "line 1: no file", "none.png"),
        ("a 0.jpg\n", "line 1: 'a 0.jpg'", "image<TAB>mask"),
        ("../images/a 0.jpg\ttask-0.png\n", "line 1: ", "relative to --images"),
        (f"{raw.root}/images/a 0.jpg\ttask-0.png\n", "line 1: ", "relative to --images"),
        (f"{lines}a 0.jpg,task-1.png,car\n", "line 7", "repeats a 0.jpg"),
        ("a 0.jpg,task-0.png\na 1.jpg,task-1.png,road\n", "a class on all lines or on none"),
    ):
        file.write_text(text)
        raw.refused(*parts, words=("--pairs", file), out="bad")
    raw.refused("no file", words=("--pairs", tmp_path / "none.txt"), out="bad")


def test_composed_and_decomposed_names_are_the_same(raw: Raw) -> None:
    for i in range(2):
        name = f"façade {i}"
        image, mask = (unicodedata.normalize(form, name) for form in ("NFD", "NFC"))
        raw.pair(f"images/{image}.jpg", f"masks/{mask}.png")
    assert raw.prepare("--strict")[0] == 0
    assert sorted(raw.images("train", "val")) == ["train/façade 1.jpg", "val/façade 0.jpg"]


@pytest.mark.parametrize("name", ["a\tb", "a\nb", "a\u2028b", "a\x85b", "a\udcff"])
def test_names_that_no_list_can_hold_are_refused(raw: Raw, name: str) -> None:
    for i in range(2):
        raw.pair(f"images/{name}{i}.jpg", f"masks/{name}{i}.png")
    raw.refused("has a tab, a line break or bytes", "rename it")
    assert not raw.out().exists()


def test_folds(raw: Raw) -> None:
    for i in range(7):
        raw.pair(f"images/{i}.jpg", f"masks/{i}.png")
    assert raw.prepare("--folds", 3)[0] == 0
    everything = {f"all/{i}.jpg" for i in range(7)}
    vals = [raw.images(f"fold{k}_val") for k in (1, 2, 3)]
    assert sorted(len(val) for val in vals) == [2, 2, 3]
    assert sorted(name for val in vals for name in val) == sorted(everything)
    for k in (1, 2, 3):
        assert set(raw.images(f"fold{k}_train")) == everything - set(vals[k - 1])
    cfg = load_config(raw.root.parent / "config/mine/mine_pspnet18.yaml")
    assert cfg.train_list.endswith("fold1_train.txt") and cfg.val_list.endswith("fold1_val.txt")
    raw.refused("--folds must be", "got 1", words=("--folds", 1), out="other")
    raw.refused("at most 7", "got 8", words=("--folds", 8), out="other")


def test_out_with_characters_of_yaml(raw: Raw, tmp_path: Path) -> None:
    for i in range(2):
        raw.pair(f"images/{i}.jpg", f"masks/{i}.png")
    assert raw.prepare(out="d #1: 'x/mine")[0] == 0
    cfg = load_config(tmp_path / "config/mine/mine_pspnet50.yaml")
    assert len(read_list(cfg.train_list, cfg.data_root, has_labels=True)) == 1
    load_names(cfg.names_path, 2), load_colors(cfg.colors_path, 2)
    raw.refused("recipe of another dataset called mine", "--out", out="elsewhere/mine")
    assert not raw.out("elsewhere").exists()


def test_invalid_values(raw: Raw, tmp_path: Path) -> None:
    for i in range(2):
        raw.pair(f"images/{i}.jpg", f"masks/{i}.png")
    raw.refused("--seed must be at least 0, got -1", words=("--seed", -1))
    raw.refused("--void ²", "does not fit masks of ids", words=("--void", "²"))
    raw.refused("--void 99999999999999999999", words=("--void", "9" * 20))
    (tmp_path / "c.txt").write_text("1 ² 3\n")
    raw.refused("line 1 is '1 ² 3'", words=("--colors", tmp_path / "c.txt"))
    raw.refused("lies inside --masks", out="../raw/masks")
    assert not (tmp_path / "dataset").exists() and not (tmp_path / "config").exists()


def test_a_second_folder_keeps_the_ids(raw: Raw, tmp_path: Path) -> None:
    raw.masks(np.array([[*RED], [*GREEN], [*BLUE]], np.uint8)[:, None])
    assert raw.prepare()[0] == 0
    names = tmp_path / "dataset/mine_names.txt"
    names.write_text("sky\ngrass\ncar\n")
    second = Raw(tmp_path / "second", raw.run_tool)
    second.root.mkdir()
    second.masks(np.array([[*RED], [*BLUE]], np.uint8)[:, None])
    code, _, err = second.prepare(out="more")
    assert code == 0 and "255 0 0 is id 2 in " in err and "give --like " in err
    second.refused("--strict", "--like", words=("--strict",), out="even more"[:4] + "2")
    assert second.prepare("--like", raw.out(), "--strict", out="alike")[0] == 0
    assert second.label(out="alike")[:, 0].tolist() == [2, 0]
    assert (tmp_path / "dataset/alike_names.txt").read_text() == names.read_text()
    record = raw.out() / "prepare_mine.json"
    content = record.read_text()
    for tampered in ('{"values": {"a": 1}}', '{"values": 3}', "{}"):
        record.write_text(tampered)
        second.refused(
            "no folder that prepare_folder.py wrote", words=("--like", raw.out()), out="o"
        )
        assert second.prepare(out="beside")[0] == 0
    record.write_text("[")
    assert second.prepare(out="beside")[0] == 0
    second.refused("is damaged", words=("--like", raw.out()), out="o")
    record.write_text(content)
    second.refused("no folder that", words=("--like", tmp_path / "second"), out="other")
    second.refused("without --names", words=("--like", raw.out(), "--void", "0,0,0"), out="other")
    second.masks(np.array([[*RED], [9, 9, 9]], np.uint8)[:, None])
    second.refused("holds colour 9 9 9", words=("--like", raw.out()), out="other")
