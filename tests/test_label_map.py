"""DATA.label_map and ignore_ids while loading, and messages for ids out of range."""

import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import ROOT, RunTool, assert_one_sentence, write_pair
from util.config import dump_config, load_config
from util.data.dataset import BatchSampler, Loader, SegmentationData
from util.data.image import read_image, read_label, write_label
from util.data.label_map import LabelMap, load_label_map
from util.data.list_file import read_list
from util.data.load import load_label
from util.data.transform import train_transform
from util.error import ConfigError, DataError


def made(setting: str | dict, *, classes: int, ignore_ids: tuple = ()) -> LabelMap:
    return load_label_map(setting, ignore_ids=ignore_ids, classes=classes, ignore_label=255)


def mapped(label_map: LabelMap, *ids: int, kind: type = np.uint8) -> list[int]:
    return label_map.apply(np.array([ids], kind), Path("x.png"))[0].tolist()


def test_without_a_map_labels_pass_untouched() -> None:
    label = np.arange(256, dtype=np.uint8)
    assert made("", classes=255).apply(label, Path("x")) is label


def test_cityscapes_follows_the_official_table() -> None:
    label_map = made("cityscapes", classes=19)
    assert mapped(label_map, 7, 8, 11, 26, 28, 31, 33) == [0, 1, 2, 13, 15, 16, 18]
    assert mapped(label_map, 0, 6, 9, 14, 29, 30) == [255] * 6
    assert len({i for i in label_map.table.values() if i != 255}) == 19


def test_ade20k_shifts_by_one() -> None:
    label_map = made("ade20k", classes=150)
    for kind in (np.uint8, np.int32, np.int64):
        assert mapped(label_map, 0, 1, 150, kind=kind) == [255, 0, 149]


@pytest.mark.parametrize(("name", "classes"), [("cityscapes", 19), ("ade20k", 150)])
def test_class_ids_are_not_mapped_again(name: str, classes: int) -> None:
    """Raw labels never hold 255, labels of class ids do."""
    label_map = made(name, classes=classes)
    with pytest.raises(DataError) as error:
        mapped(label_map, 0, 11, 255)
    assert str(error.value) == (
        "label x.png holds id 255 (1 pixels), so it looks like class ids, not raw ids of "
        f"{name}: set DATA.label_map: ''"
    )
    assert label_map.cause({0: 9, 255: 1}).kind == "converted-ids"


def test_ignore_ids_are_the_ids_of_files() -> None:
    assert mapped(made("", classes=3, ignore_ids=(1, 7)), 0, 1, 2, 7) == [0, 255, 2, 255]
    void = made("", classes=3, ignore_ids=(-1, 65535))
    assert mapped(void, -1, 0, 2, 65535, kind=np.int32) == [255, 0, 2, 255]
    assert mapped(made({5: 0, 6: 1}, classes=2, ignore_ids=(6, 0)), 5, 6, 0) == [0, 255, 255]


def test_the_ignore_label_stays_unless_named() -> None:
    assert mapped(made({0: 1, 1: 0}, classes=2), 0, 1, 255) == [1, 0, 255]
    assert mapped(made({0: 0, 255: 1}, classes=2), 0, 255) == [0, 1]


@pytest.mark.parametrize("kind", [np.uint8, np.int32])
def test_an_id_without_a_place_is_refused(kind: type) -> None:
    with pytest.raises(DataError, match=r"x.png holds id 3 \(2 pixels\), 9 \(1 pixels\), which"):
        mapped(made({0: 0, 1: 1}, classes=2), 0, 3, 9, 3, kind=kind)
    with pytest.raises(DataError, match="holds id -1"):
        mapped(made({0: 0, 1: 1}, classes=2), -1, kind=np.int32)


def test_files_of_ids_and_of_colors(tmp_path: Path) -> None:
    path = tmp_path / "map"
    for text in ("7: 0\n8: 1\n", '{"7": 0, "8": 1}'):
        path.write_text(text)
        assert mapped(made(str(path), classes=2), 7, 8) == [0, 1]
    path.write_text("128 0 0\r\n0 128 0\n0 0 0 255\n\n")
    label_map = made(str(path), classes=2)
    image = np.array([[[128, 0, 0], [0, 128, 0], [0, 0, 0]]], np.uint8)
    Image.fromarray(image).save(tmp_path / "rgb.png")
    assert load_label(tmp_path / "rgb.png", label_map).tolist() == [[0, 1, 255]]
    Image.fromarray(image + 1).save(tmp_path / "rgb.png")
    with pytest.raises(DataError, match=r"holds colour 1 1 1 \(1 pixels\).*add a line `1 1 1 255`"):
        load_label(tmp_path / "rgb.png", label_map)
    for text in ("a: b", "1 2 300\n", "- 1", "", "{"):
        path.write_text(text)
        with pytest.raises(ConfigError, match="must hold a `raw id: class id` line"):
            made(str(path), classes=2)
    path.write_text("0-99: 0  # dark\n100-255: 1\n")
    assert mapped(made(str(path), classes=2), 0, 99, 100, 255) == [0, 0, 1, 1]


@pytest.mark.parametrize("text", ["7: 0\n7: 1\n", '{"7": 0, "7": 1}', "{0-9: 0, 7: 1}"])
def test_an_id_that_a_map_names_twice_is_an_error(tmp_path: Path, tiny: Path, text: str) -> None:
    path = tmp_path / "map"
    path.write_text(text)
    with pytest.raises(ConfigError, match="maps id 7 twice, to classes 0 and 1: remove one"):
        made(str(path), classes=2)
    path.write_text("9 9 9\n9 9 9 1\n")
    with pytest.raises(ConfigError, match="maps colour 9 9 9 twice, to classes 0 and 1"):
        made(str(path), classes=2)
    with pytest.raises(ConfigError, match="given twice"):
        load_config(tiny, ["DATA.label_map", "{7: 0, 7: 1}"])


def test_maps_that_cannot_work_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cityscapes maps to id 11, but ids must be 0\.\.10"):
        made("cityscapes", classes=11)
    with pytest.raises(ConfigError, match="lists id -40000"):
        made({-40000: 0}, classes=2)
    with pytest.raises(ConfigError, match="lists id 70000"):
        made("", classes=2, ignore_ids=(70000,))
    (tmp_path / "r").write_text("5-0: 1\n")  # it would name no id, and all would stay as they are
    with pytest.raises(ConfigError, match="holds the range 5-0, whose end is below its start"):
        made(str(tmp_path / "r"), classes=2)
    (tmp_path / "c").write_text("1 2 3\n")
    with pytest.raises(ConfigError, match="lists colours"):
        made(str(tmp_path / "c"), classes=2, ignore_ids=(3,))


def test_config_takes_names_mappings_and_files(tiny: Path, tmp_path: Path) -> None:
    def read(*words: str) -> object:
        cfg = load_config(tiny, words)
        (tmp_path / "again.yaml").write_text(dump_config(cfg))
        assert load_config(tmp_path / "again.yaml") == cfg
        return cfg.label_map

    assert read() == "" and read("DATA.label_map", "ade20k") == "ade20k"
    assert read("DATA.label_map", "{0: 0, 255: 1}") == {0: 0, 255: 1}
    assert read("DATA.label_map", "m.yaml") == str(Path.cwd() / "m.yaml")
    text = tiny.read_text()
    tiny.write_text(text.replace("DATA:\n", "DATA:\n  label_map: {0: 0, 255: 1}\n"))
    assert read() == {0: 0, 255: 1}
    tiny.write_text(text.replace("DATA:\n", "DATA:\n  label_map: dataset/m.txt\n"))
    assert read() == str(ROOT / "dataset/m.txt")
    for wrong in ("{0: a}", "[1]", "{0: 0.5}"):
        with pytest.raises(ConfigError, match="must be a name, a file or a mapping"):
            read("DATA.label_map", wrong)


CAUSES = [
    ([0, 255], 2, 65535, "looks like a 0/255 mask", "DATA.label_map: {0: 0, 255: 1}"),
    ([7, 8, 33], 19, 255, "looks like Cityscapes labelIds", "DATA.label_map: cityscapes"),
    ([*range(20)], 19, 255, "0 for no data and classes 1..19", "or DATA.ignore_ids: [19]"),
    ([*range(1, 20)], 19, 255, "looks like ids starting at 1", "DATA.label_map: {1: 0, 2: 1"),
    ([0, 5, 19], 19, 255, "a different void id, an extra class", "DATA.ignore_ids: [19]"),
    ([0, 3, 150], 150, 255, "looks like raw ADE20K ids", "DATA.label_map: ade20k"),
    ([1, 2, 3], 3, 255, "looks like ids starting at 1", "DATA.label_map: {1: 0, 2: 1, 3: 2}"),
    ([0, 1, 11], 11, 255, "a different void id", "DATA.ignore_ids: [11]"),
    ([0, 38, 75, 113], 21, 255, "another class set, or gray levels", "DATA.classes: 114"),
]


@pytest.mark.parametrize(("ids", "classes", "ignored", "cause", "cure"), CAUSES)
def test_out_of_range_ids_name_the_cause(
    ids: list[int], classes: int, ignored: int, cause: str, cure: str
) -> None:
    with pytest.raises(DataError) as error:
        LabelMap(classes, ignored).apply(np.array([ids]), Path("a/b.png"))
    for part in ("label a/b.png holds id ", f"{ids[-1]} (1 pixels)", cause, cure):
        assert part in str(error.value)


def test_training_stops_with_that_message(tiny: Path, run_tool: RunTool) -> None:
    path = tiny.parent / "data/labels/p1.png"
    write_label(path, read_label(path) + 1)  # 1..3, and 255 + 1 = 0
    code, _, err = run_tool("train", "--config", tiny)
    assert_one_sentence(code, err, "p1.png holds id 3 (", "DATA.ignore_ids: [3]")


def test_sixteen_bit_labels_reach_the_loss_unharmed(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    label = rng.integers(0, 300, (40, 40)).astype(np.uint16)
    label[:9] = 65535
    line = write_pair(tmp_path, "x", rng.integers(0, 255, (40, 40, 3)).astype(np.uint8), label)
    (tmp_path / "list").write_text(f"{line}\n{line}\n")
    data = SegmentationData(
        read_list(tmp_path / "list", tmp_path, has_labels=True),
        train_transform((33, 33), scale=(0.5, 2), rotate=(-10, 10), ignore_label=65535),
        LabelMap(300, 65535),
        seed=0,
    )
    sampler = BatchSampler(2, 2, shuffle=True)
    loader = Loader(data, sampler, workers=0, pin_memory=False)
    seen = set()
    for epoch in range(8):
        loader.sampler.start(epoch)
        seen |= {i for _, labels in loader for i in torch.unique(labels).tolist()}
    assert seen - {65535} <= set(range(300)) and max(seen - {65535}) > 255 and 65535 in seen


def test_id_check_costs_under_three_percent_of_loading(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    smooth = np.kron(rng.integers(0, 255, (36, 48, 3)), np.ones((10, 10, 1))).astype(np.uint8)
    label = np.kron(rng.integers(0, 11, (36, 48)), np.ones((10, 10))).astype(np.uint8)
    Image.fromarray(smooth).save(tmp_path / "x.jpg")
    write_label(tmp_path / "x.png", label)

    def fastest(work: object, *given: object, **named: object) -> float:
        times = []
        for _ in range(7):
            start = time.perf_counter()
            work(*given, **named)
            times.append(time.perf_counter() - start)
        return min(times)

    loading = fastest(read_image, tmp_path / "x.jpg") + fastest(read_label, tmp_path / "x.png")
    transform = train_transform((257, 257), scale=(1, 1.01), rotate=(-1, 1), ignore_label=255)
    loading += fastest(lambda: transform(smooth, label, np.random.default_rng(0)))
    check = fastest(LabelMap(11, 255).apply, label, tmp_path / "x.png")
    assert check < 0.03 * loading
