"""tool/check_data.py: every fault is found, the printed fix works, no false alarms."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import ROOT, RunTool, assert_one_sentence
from tests.helpers.faults import (
    FAULTS,
    HEIGHT,
    WIDTH,
    Data,
    cut_a_jpeg,
    empty_a_file,
    follow,
    leak_a_image,
    number_void_otherwise,
    repeat_a_line,
    shrink_a_label,
    void_a_label,
    write_text,
)
from util.data.label_map import LabelMap
from util.error import ConfigError, DataError
from util.extra.dataset_check.counts import count_classes, median_weights, read_weights


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Data:
    monkeypatch.chdir(tmp_path)
    return Data(tmp_path / "my data")


def test_a_sound_dataset_is_clean(data: Data, run_tool: RunTool) -> None:
    code, found, out = data.check(run_tool)
    assert (code, found["findings"]) == (0, [])
    assert "4 train, 2 val pairs" in out and "clean" in out
    assert found["pixels"]["train"] == [4 * 256] * 3 and found["images"]["val"] == [2] * 3


@pytest.mark.parametrize(("kind", "spoil", "place"), FAULTS, ids=[f[1].__name__ for f in FAULTS])
def test_fault_is_found_named_and_cured(
    data: Data, run_tool: RunTool, kind: str, spoil: Callable[[Data], None], place: str
) -> None:
    spoil(data)
    code, found, out = data.check(run_tool)
    assert code == 1
    findings = {finding["kind"]: finding for finding in found["findings"]}
    assert kind in findings, found["findings"]
    assert any(place in name for name in findings[kind]["files"]), findings[kind]
    assert f"FOUND [{kind}]" in out and findings[kind]["cure"] in out
    words = follow(findings[kind]["cure"])
    code, found, out = data.check(run_tool, *words)
    assert (code, found["findings"]) == (0, []), (words, out)


def test_faults_of_all_kinds_at_once(tmp_path: Path, run_tool: RunTool) -> None:
    data = Data(tmp_path, train=40)
    (tmp_path / "train/3.png").unlink()
    for i, spoil in enumerate(
        (cut_a_jpeg, empty_a_file, write_text, shrink_a_label, void_a_label, number_void_otherwise)
    ):
        kept = {f: (tmp_path / f"train/2.{f}").read_bytes() for f in ("jpg", "png")}
        spoil(data)
        for ending, content in kept.items():  # each fault on its own pair: 10, 11, ...
            data.copy(f"train/2.{ending}", f"train/{10 + i}.{ending}")
            (tmp_path / f"train/2.{ending}").write_bytes(content)
    # Copies of image 2 must differ.
    for i in range(10, 16):
        if i not in (10, 12):
            Image.new("RGB", (WIDTH, HEIGHT), (i, i, i)).save(tmp_path / f"train/{i}.jpg")
    repeat_a_line(data)
    leak_a_image(data)
    code, found, _ = data.check(run_tool)
    assert code == 1
    kinds = {finding["kind"]: finding for finding in found["findings"]}
    assert set(kinds) == {
        *("missing", "truncated", "empty-file", "unreadable", "size-mismatch", "all-void"),
        *("void-id", "duplicate-line", "train-val-leak"),
    }
    words = [word for finding in kinds.values() for word in follow(finding["cure"])]
    code, found, out = data.check(run_tool, *words)
    assert (code, found["findings"]) == (0, []), out
    assert (
        found["pairs"]["train"] == 40 - 1 - 5 - 1
    )  # missing, unusable, leaked; the void id is fixed


def test_sixteen_bit_labels_of_many_classes_are_clean(data: Data, run_tool: RunTool) -> None:
    label = (np.arange(HEIGHT * WIDTH) % 700).astype(np.uint16).reshape(HEIGHT, WIDTH)
    label[-1] = 65535
    data.write_all_labels(label)
    words = ["DATA.classes", "700", "TRAIN.ignore_label", "65535"]
    code, found, _ = data.check(run_tool, *words)
    assert (code, found["findings"]) == (0, [])
    code, found, _ = data.check(run_tool, "DATA.classes", "699", *words[2:])
    assert "ignore_ids: [699]" in found["findings"][0]["cure"]


def test_invalid_arguments(data: Data, run_tool: RunTool) -> None:
    def refused(*words: str) -> tuple[int, str]:
        code, _, err = run_tool("check_data", "--config", data.config, *words)
        return code, err

    assert_one_sentence(*refused("DATA.train_list", "none.txt"), "no list file", "none.txt")
    assert_one_sentence(*refused("--split", "val", "DATA.val_list", ""), "DATA.val_list is empty")
    assert_one_sentence(*refused("DATA.label_map", "cityscapez"), "DATA.label_map: no file")
    assert_one_sentence(*refused("TRAIN.ignore_label", "2"), "is also a class id")
    before = (data.root / "train.txt").read_bytes()
    code, err = refused("--json", str(data.root / "train.txt"))
    assert_one_sentence(code, err, "train.txt exists and is not a result of an earlier run")
    assert (data.root / "train.txt").read_bytes() == before
    assert_one_sentence(*refused("--json", "/dev/full/x.json"), "/dev/full")


def test_names_in_latin_1_are_a_finding(data: Data, run_tool: RunTool) -> None:
    path = data.root / "names.txt"
    path.write_bytes("Straße\nWiese\n\x1b[31mrot\n".encode("latin-1"))
    code, found, out = data.check(run_tool, "TEST.names_path", str(path))
    assert code in (0, 1) and "\x1b[" not in out
    assert code == 0 or any(finding["kind"] == "names" for finding in found["findings"])


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("road\ncar\nroad\n", "line 3 repeats 'road' of line 1"),
        ("# my classes\nroad\ncar\ntree\n", "line 1 '# my classes' looks like a comment"),
    ],
)
def test_names_that_cannot_be_told_apart_are_a_finding(
    data: Data, run_tool: RunTool, text: str, part: str
) -> None:
    path = data.root / "names.txt"
    path.write_text(text)
    code, found, _ = data.check(run_tool, "TEST.names_path", str(path))
    (finding,) = found["findings"]
    assert code == 1 and finding["kind"] == "names" and part in finding["what"]
    assert finding["cure"] == f"correct {path}, or leave TEST.names_path empty"
    assert found["names"] == ["class 0", "class 1", "class 2"]


def test_class_weights_are_median_frequencies(data: Data, run_tool: RunTool) -> None:
    # Class 0 has 3 of 4 pixels of image 1; class 1 the fourth and half of image 2; class 2 the
    # other half. Frequencies: 3/4, (25 + 50) / 200, 1/2.
    counts = count_classes([{0: 75, 1: 25, 255: 9}, {1: 50, 2: 50}], classes=4)
    np.testing.assert_allclose(counts.median_weights(), [0.5 / 0.75, 0.5 / 0.375, 1, 1], rtol=1e-3)
    data.write_all_labels(np.minimum(data.ids(6), 2))
    _, found, _ = data.check(run_tool)
    labels = sorted(data.root.glob("train/*.png"))
    weights = median_weights(labels, LabelMap(3, 255), classes=3)
    assert weights == found["class_weights"] == [1.0, 1.0, 0.25]
    assert read_weights(data.root / "found.json", classes=3) == weights
    with pytest.raises(ConfigError, match="holds 3 numbers, but 4"):
        read_weights(data.root / "found.json", classes=4)
    (data.root / "odd.json").write_text('{"class_weights": [1, NaN, 1]}')
    with pytest.raises(ConfigError, match="but 3 from 0 to 1000000 are needed"):
        read_weights(data.root / "odd.json", classes=3)
    with pytest.raises(ConfigError, match="is not JSON"):
        read_weights(data.config, classes=3)
    with pytest.raises(DataError, match=r"holds id 2 \(512 pixels\)"):
        median_weights(labels, LabelMap(2, 255), classes=2)


@pytest.mark.skipif(not (ROOT / "dataset/camvid").exists(), reason="needs dataset/camvid")
def test_no_false_alarm_on_camvid(run_tool: RunTool) -> None:
    config = ROOT / "config/camvid/camvid_pspnet18.yaml"
    code, out, err = run_tool("check_data", "--config", config, "--split", "val")
    assert code == 0, out + err


def test_a_label_that_is_its_own_image_is_an_error(data: Data, run_tool: RunTool) -> None:
    (data.root / "train/link.jpg").symlink_to("0.png")
    data.add_line("train", "train/2.png ./train/2.png")
    data.add_line("train", "train/link.jpg train/0.png")
    _, found, out = data.check(run_tool)
    finding = next(f for f in found["findings"] if f["kind"] == "same-file")
    assert "2 lines whose image and label are the same file" in out
    assert "line 5: image " in finding["files"][0] and "line 6: " in finding["files"][1]
    words = ["train", "--config", data.config, "TRAIN.save_path", data.root / "run"]
    assert_one_sentence(*run_tool(*words)[::2], "train.txt line 5: ", "are the same file")
    follow(finding["cure"])
    assert data.check(run_tool)[0] == 0
    for split in ("train", "val"):
        (data.root / f"{split}.txt").write_text(f"{split}/0.png {split}/0.png\n" * 2)
    _, found, _ = data.check(run_tool)
    (finding,) = found["findings"]
    assert finding["kind"] == "same-file" and "sed" not in finding["cure"]


@pytest.mark.parametrize("more", [0, 2])
def test_lists_of_the_same_images_are_not_emptied(data: Data, run_tool: RunTool, more: int) -> None:
    train = (data.root / "train.txt").read_text()
    own = "".join((data.root / "val.txt").read_text().splitlines(keepends=True)[:more])
    (data.root / "val.txt").write_text(own + train)
    for words in ([], ["DATA.val_list", str(data.root / "train.txt")]):
        _, found, _ = data.check(run_tool, *words)
        (finding,) = found["findings"]
        assert finding["kind"] == "train-val-leak" and finding["what"].startswith("4 images")
        assert finding["cure"].startswith("set DATA.val_list to a list of other images: ")
        assert "hold the same ones" in finding["cure"] and "sed" not in finding["cure"]


@pytest.mark.parametrize("ending", ["jpg", "png"])
def test_swapped_columns_are_named(data: Data, run_tool: RunTool, ending: str) -> None:
    for path in data.root.glob("*/*.jpg"):
        Image.open(path).save(path.with_name(f"{path.stem}_photo.{ending}"), quality=90)
    for split, count in (("train", 4), ("val", 2)):
        lines = [f"{split}/{i}.png {split}/{i}_photo.{ending}\n" for i in range(count)]
        (data.root / f"{split}.txt").write_text("".join(lines))
    _, found, out = data.check(run_tool)
    (finding,) = found["findings"]
    assert finding["kind"] == "swapped-columns" and "6 lines whose columns look swapped" in out
    assert finding["cure"] == "exchange the two columns of the list: a line is `image label`"
    words = ["train", "--config", data.config, "TRAIN.save_path", data.root / "run"]
    parts = ("holds class ids", f"{ending} is a photo: exchange the two columns of the list")
    assert_one_sentence(*run_tool(*words)[::2], *parts)


def test_entirely_void_lists_are_not_emptied(data: Data, run_tool: RunTool) -> None:
    data.write_all_labels(np.full((HEIGHT, WIDTH), 255, np.uint8))
    _, found, _ = data.check(run_tool)
    (finding,) = (f for f in found["findings"] if f["kind"] == "all-void")
    assert finding["cure"] == "check DATA.label_map, DATA.ignore_ids and the labels themselves"
