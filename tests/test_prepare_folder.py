"""tool/prepare_folder.py: masks of every kind, splits, and a recipe that loads."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import RunTool, assert_one_sentence
from tests.helpers.photos import BLUE, NAMES, RED, label_path, made, names_of, options, write_photos
from tests.helpers.raw_data import (
    assert_label,
    files_below,
    lines_of,
    write_colors,
    write_ids,
    write_image,
)
from util.config import check_test, check_train, load_config
from util.data.list_file import read_list
from util.palette import load_colors, load_names


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return write_photos(tmp_path / "raw")


def test_ids_split_and_recipe(raw: Path, run_tool: RunTool) -> None:
    for name in NAMES:
        write_ids(raw / f"masks/{name}.png", 0, 1, 2, 255)
    before, out = files_below(raw), raw.parent / "dataset/mine"
    code, stdout, err = run_tool("prepare_folder", *options(raw, "--val-fraction", 0.4))
    assert (code, err) == (0, "")
    assert "classes: 3 (class 0, class 1, class 2)" in stdout
    train, val = lines_of(out, "train"), lines_of(out, "val")
    assert (len(train), len(val)) == (3, 2)
    assert sorted(line.split(".jpg")[0].split("/")[-1] for line in train + val) == NAMES
    assert train[0].startswith("images/train/street ") and " labels/train/street " in train[0]
    assert len(read_list(out / "list/val.txt", out, has_labels=True)) == 2
    assert_label(label_path(raw, NAMES[0]), 0, 1, 2, 255)
    assert files_below(raw) == before
    for net, layers in (("pspnet50", 50), ("pspnet18", 18)):
        cfg = load_config(raw.parent / f"config/mine/mine_{net}.yaml")
        check_train(cfg)
        check_test(cfg)
        assert (cfg.classes, cfg.layers, cfg.batch_size) == (3, layers, 3)
        assert cfg.data_root == str(out) and cfg.train_list == str(out / "list/train.txt")
        assert load_names(cfg.names_path, 3) == ["class 0", "class 1", "class 2"]
        assert len(np.unique(load_colors(cfg.colors_path, 3), axis=0)) == 3


def test_recipe_fits_the_images(raw: Path, run_tool: RunTool) -> None:
    for name in NAMES:
        write_image(raw / f"photos/{name}.jpg", size=(100, 700))
        Image.fromarray(np.eye(100, 700, dtype=np.uint8)).save(made(raw / f"masks/{name}.png"))
    assert run_tool("prepare_folder", *options(raw))[0] == 0
    cfg = load_config(raw.parent / "config/mine/mine_pspnet50.yaml")
    assert (cfg.train_h, cfg.train_w, cfg.test_h, cfg.base_size) == (97, 473, 97, 700)


@pytest.mark.parametrize(("cores", "workers"), [(1, 1), (2, 2), (64, 4)])
def test_workers_fit_the_cores(
    raw: Path, run_tool: RunTool, monkeypatch: pytest.MonkeyPatch, cores: int, workers: int
) -> None:
    monkeypatch.setattr("util.extra.prepare.recipe.available_cores", lambda: cores)
    for name in NAMES:
        write_ids(raw / f"masks/{name}.png", 0, 1)
    assert run_tool("prepare_folder", *options(raw))[0] == 0
    assert load_config(raw.parent / "config/mine/mine_pspnet18.yaml").workers == workers


def test_split_depends_on_the_seed(raw: Path, run_tool: RunTool) -> None:
    for name in NAMES:
        write_ids(raw / f"masks/{name}.png", 0, 1)
    out = raw.parent / "dataset/mine"
    assert run_tool("prepare_folder", *options(raw))[0] == 0
    first = lines_of(out, "val")
    assert run_tool("prepare_folder", *options(raw))[0] == 0  # a rerun changes nothing
    code, _, err = run_tool("prepare_folder", *options(raw, "--seed", 1))
    assert_one_sentence(code, err, "was prepared with seed 0 (requested: 1)", "another --out")
    assert lines_of(out, "val") == first
    seen = set()
    for seed in range(6):
        other = raw.parent / f"dataset/other{seed}"
        words = options(raw, "--seed", seed)
        words[words.index(out)] = other
        assert run_tool("prepare_folder", *words)[0] == 0
        seen.add(tuple(lines_of(other, "val")))
    assert len(seen) > 1


def test_names_keep_ids_that_no_mask_holds(raw: Path, run_tool: RunTool, tmp_path: Path) -> None:
    (tmp_path / "n.txt").write_text("road\nsky\ncar\n")
    for name in NAMES:
        write_ids(raw / f"masks/{name}.png", 0, 2, 255)
    assert run_tool("prepare_folder", *options(raw, "--names", tmp_path / "n.txt"))[0] == 0
    assert_label(label_path(raw, NAMES[0]), 0, 2, 255)
    assert names_of(raw) == ["road", "sky", "car"]


def test_suffix_subfolders_and_one_folder_for_both(raw: Path, run_tool: RunTool) -> None:
    for name in ("a/1", "b/1", "b/2"):
        write_image(raw / f"all/{name}.jpg")
        write_ids(raw / f"all/{name}_mask.png", 0, 1)
    words = options(raw, "--mask-suffix", "_mask", "--strict")
    words[1], words[3] = raw / "all", raw / "all"
    assert run_tool("prepare_folder", *words)[0] == 0
    out = raw.parent / "dataset/mine"
    lines = lines_of(out, "train") + lines_of(out, "val")
    stems = sorted(line.split()[0].split("/", 2)[2] for line in lines)
    assert stems == ["a/1.jpg", "b/1.jpg", "b/2.jpg"]


def test_beside_the_raw_data(raw: Path, run_tool: RunTool) -> None:
    for name in NAMES:
        write_ids(raw / f"labels/{name}.png", 0, 1)
    before = files_below(raw)
    words = options(raw)
    words[3] = raw / "labels"
    words[words.index("--out") + 1] = raw
    for _ in range(2):
        code, _, err = run_tool("prepare_folder", *words)
        assert (code, err) == (0, "")
    assert {k: v for k, v in files_below(raw).items() if k in before} == before
    assert lines_of(raw, "train")[0].startswith("photos/street ")
    assert " label_ids/train/street " in lines_of(raw, "train")[0]


def test_edited_names_and_recipes_stay(raw: Path, run_tool: RunTool) -> None:
    for name in NAMES:
        write_ids(raw / f"masks/{name}.png", 0, 1)
    assert run_tool("prepare_folder", *options(raw))[0] == 0
    names = raw.parent / "dataset/mine_names.txt"
    names.write_text("road\nsky")
    code, stdout, _ = run_tool("prepare_folder", *options(raw))
    assert code == 0 and f"{names}: exists, left unchanged" in stdout
    assert names.read_text() == "road\nsky"
    names.write_text("road\nsky\ncar\n")
    code, _, err = run_tool("prepare_folder", *options(raw))
    assert_one_sentence(code, err, str(names), "without 2 lines")


def test_new_images_change_the_split(raw: Path, run_tool: RunTool) -> None:
    for name in NAMES:
        write_ids(raw / f"masks/{name}.png", 0, 1)
    assert run_tool("prepare_folder", *options(raw))[0] == 0
    before = files_below(raw.parent / "dataset")
    write_image(raw / "photos/new.jpg")
    write_ids(raw / "masks/new.png", 0, 1)
    code, _, err = run_tool("prepare_folder", *options(raw))
    assert_one_sentence(code, err, "list/train.txt has other content")
    assert files_below(raw.parent / "dataset") == before


def test_unpaired_files_are_reported(raw: Path, run_tool: RunTool) -> None:
    for name in NAMES[1:]:
        write_ids(raw / f"masks/{name}.png", 0, 1)
    code, _, err = run_tool("prepare_folder", *options(raw, "--strict"))
    assert_one_sentence(code, err, "1 image without a label left out", NAMES[0])
    assert not (raw.parent / "dataset").exists()
    code, _, err = run_tool("prepare_folder", *options(raw))
    assert code == 0 and err.startswith("warning: ")


def test_refusals(raw: Path, run_tool: RunTool, tmp_path: Path) -> None:
    def refused(*parts: str, more: tuple[object, ...] = ()) -> None:
        code, _, err = run_tool("prepare_folder", *options(raw, *more))
        assert_one_sentence(code, err, *parts)

    def masks(*values: int) -> None:
        for name in NAMES:
            write_ids(raw / f"masks/{name}.png", *values)

    refused("--masks", "is not a folder")
    (raw / "masks").mkdir()
    refused("0 pairs of the same name among 5 images", "--pair ")
    masks(0, 0)
    refused("1 class besides void: at least 2")
    masks(0, 1, 9)
    file = tmp_path / "c.txt"
    file.write_text("1 2 3 a\n4 5 6 b\n")
    refused("holds id 9", "--void 9", more=("--colors", file))
    file.write_text("1 2\n")
    refused("line 1 is '1 2'", "0..255", more=("--colors", file))
    file.write_text("1 2 3\n1 2 3\n")
    refused("line 2 repeats 1 2 3", more=("--colors", file))
    file.write_text("1 2 3 a\n4 5 6 a\n")
    refused("--colors", "two classes 'a': list each of them once", more=("--colors", file))
    file.write_text("a\nb\na\n")
    refused("--names", "two classes 'a': list each of them once", more=("--names", file))
    file.write_text("# mine\na\n")
    refused("has the class '# mine': remove the line if", more=("--names", file))
    file.write_bytes(b"\xff\xfe\x00")
    refused("is not UTF-8 text", more=("--names", file))
    refused("no file", "nothing.txt", more=("--names", tmp_path / "nothing.txt"))
    refused("--void 0,0,0", "does not fit masks of ids", more=("--void", "0,0,0"))
    refused("--val-fraction must be between 0 and 1, got 1.0", more=("--val-fraction", 1))
    refused("lies inside --images", more=("--out", raw / "photos/out"))
    refused("must end in a name", more=("--out", tmp_path / "my data"))
    write_colors(raw / f"masks/{NAMES[0]}.png", RED, BLUE)
    refused("holds ids", "holds colours", "save all masks in the same way")
    masks(0, 1)
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    Image.fromarray(noise).save(raw / f"masks/{NAMES[0]}.png")
    refused("different values", "like a photo")
    (raw / f"masks/{NAMES[0]}.png").unlink()
    Image.fromarray(noise).save(raw / f"masks/{NAMES[0]}.jpg")
    refused("lossy compression (JPEG)", "as PNG")
    assert not (raw.parent / "dataset").exists() and not (raw.parent / "config").exists()
