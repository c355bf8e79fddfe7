"""Labels coded differently from the config or other files: printed fixes give the right classes."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import RunTool, assert_one_sentence
from tests.helpers.faults import COLORS, Data, follow
from tests.helpers.files import PNG_PALETTE, write_png, write_tiff
from util.config import load_config
from util.data.dataset import build_data
from util.data.label_map import label_map_of
from util.data.list_file import read_list
from util.data.load import load_label
from util.error import DataError
from util.evaluation.evaluator import Evaluator

VOID = 255


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Data:
    monkeypatch.chdir(tmp_path)
    return Data(tmp_path / "d", train=8)


def truth_of(classes: int, *, void: bool = False) -> np.ndarray:
    """Draw classes in blocks, so that smoothing only changes edges, and void in two rows."""
    truth = (np.arange(32) * classes // 32)[None].repeat(24, 0)
    truth[10:14] = np.roll(truth[10:14], 5, 1)
    if void:
        truth[:2] = VOID
    return truth.astype(np.uint8)


def smoothed(truth: np.ndarray) -> np.ndarray:
    large = np.kron(truth * 255, np.ones((8, 8))).astype(np.uint8)
    image = Image.fromarray(np.roll(large, 3, 1))  # edges between pixels
    return np.array(image.resize(truth.shape[::-1], Image.Resampling.BILINEAR))


def through_jpeg(truth: np.ndarray, folder: Path) -> np.ndarray:
    Image.fromarray(truth * 255).save(folder / "x.jpeg", quality=80)
    return np.array(Image.open(folder / "x.jpeg"))


def levels(*values: int) -> Callable[[np.ndarray], np.ndarray]:
    """Store class i as values[i]; void stays 255."""
    table = np.full(256, VOID, np.uint8)
    table[: len(values)] = values
    return lambda truth: table[truth]


# name, classes, whether there is void, coded labels, kind of the finding, words of the fix
CODED = [
    ("0 is no data, 1..7", 7, True, lambda t: t + np.uint8(1), "zero-is-void"),
    ("1..3", 3, True, lambda t: np.where(t == VOID, VOID, t + 1), "off-by-one"),
    ("0/255 mask", 2, False, lambda t: t * 255, "mask-0-255"),
    ("0/1 with some 0/255", 2, False, None, "mask-0-255"),
    ("0/128/255 for three classes", 3, False, levels(0, 128, 255), "shades"),
    ("0/128 and 255 for void", 2, True, levels(0, 128), "shades"),
    ("0/85/170/255 for four", 4, False, levels(0, 85, 170, 255), "shades"),
    ("50/100/150", 3, True, levels(50, 100, 150), "shades"),
    ("other void", 3, True, lambda t: np.where(t == VOID, 200, t), "void-id"),
    ("smoothed 0/255", 2, False, smoothed, "smoothed-mask"),
]


@pytest.mark.parametrize(
    ("name", "classes", "void", "code", "kind"), CODED, ids=[c[0] for c in CODED]
)
def test_a_printed_fix_gives_the_right_classes(
    data: Data, run_tool: RunTool, name: str, classes: int, void: bool, code: Callable, kind: str
) -> None:
    truth = truth_of(classes, void=void)
    if code is None:
        data.write_all_labels(truth)
        data.write_label("train/2.png", truth * 255)
    else:
        data.write_all_labels(code(truth).astype(np.uint8))
    data.words = ["DATA.classes", str(classes)]
    check_fix(data, run_tool, kind, truth)


@pytest.mark.parametrize("kind", ["<i2", "<i4", "<f4"])
def test_void_as_minus_one(data: Data, run_tool: RunTool, kind: str) -> None:
    truth = truth_of(3, void=True)
    for path in data.root.glob("*/*.png"):
        write_tiff(path, np.where(truth == VOID, -1, truth.astype(int)).astype(kind))
    check_fix(data, run_tool, "void-id", truth)


def test_a_mask_that_went_through_jpeg_is_refused_or_cut_at_the_middle(
    data: Data, run_tool: RunTool, tmp_path: Path
) -> None:
    truth = truth_of(2)
    data.write_all_labels(through_jpeg(truth, tmp_path))
    data.words = ["DATA.classes", "2"]
    check_fix(data, run_tool, "smoothed-mask", truth)


def check_fix(data: Data, run_tool: RunTool, kind: str, truth: np.ndarray) -> None:
    """Assert that the problem is found, and that its fix gives `truth` and a clean dataset."""
    code, found, out = data.check(run_tool)
    finding = next(f for f in found["findings"] if f["kind"] == kind)
    assert code == 1 and finding["cure"] in out
    words = [*data.words, *follow(finding["cure"])]
    code, found, out = data.check(run_tool, *words)
    assert (code, found["findings"]) == (0, []), out
    label_map = label_map_of(load_config(data.config, words))
    for path in data.root.glob("*/*.png"):
        np.testing.assert_array_equal(load_label(path, label_map), truth)


def test_ambiguous_ids_name_both_interpretations(data: Data, run_tool: RunTool) -> None:
    data.write_all_labels(levels(0, 128)(truth_of(2, void=True)))
    _, found, _ = data.check(run_tool, "DATA.classes", "2")
    fix = found["findings"][0]["cure"]
    assert (
        "{0: 0, 128: 1}, if 255 is void" in fix
        and "{0: 0, 255: 1, 128: 255}, if 128 is void" in fix
    )
    data.write_all_labels(truth_of(4))
    _, found, _ = data.check(run_tool)
    fix = found["findings"][0]["cure"]
    for part in (
        "if 0 means no data",
        "[3], if 3 is void",
        "DATA.classes: 4, if 3 is another class",
    ):
        assert part in fix


# One file that is coded differently from the rest -------------------------------------------------


def palette(*order: int) -> list[int]:
    return COLORS[list(order)].ravel().tolist()


def one_bit(data: Data) -> None:
    write_png(data.root / "train/2.png", truth_of(2), 1)


def one_mask(data: Data) -> None:
    data.write_label("train/2.png", truth_of(2) * 255)


def one_palette(data: Data) -> None:
    for path in data.root.glob("*/*.png"):
        write_png(path, truth_of(3), 8, kind=PNG_PALETTE, palette=palette(0, 1, 2))
    path = data.root / "train/2.png"
    write_png(path, (truth_of(3) + 1) % 3, 8, kind=PNG_PALETTE, palette=palette(2, 0, 1))


def palette_of_other_order(data: Data) -> None:
    """Palettes of all files hold the class colours in another order than the classes."""
    np.savetxt(data.root / "colors.txt", COLORS, fmt="%d")
    data.words = ["TEST.colors_path", str(data.root / "colors.txt")]
    for path in data.root.glob("*/*.png"):
        write_png(path, (truth_of(3) + 1) % 3, 8, kind=PNG_PALETTE, palette=palette(2, 0, 1))


ODD = [
    ("mixed-bits", one_bit, "train/2.png", "save it again like the others"),
    ("mask-among-ids", one_mask, "train/2.png", "DATA.ignore_ids: [255], if 255 is void there"),
    ("palettes", one_palette, "train/2.png", "DATA.label_map: a file with a line `R G B id`"),
    ("palette-colours", palette_of_other_order, "train/0.png", "DATA.label_map: "),
]


@pytest.mark.parametrize(("kind", "spoil", "place", "fix"), ODD, ids=[o[0] for o in ODD])
def test_file_with_another_encoding_is_named_by_check_train_and_test(
    data: Data, run_tool: RunTool, kind: str, spoil: Callable[[Data], None], place: str, fix: str
) -> None:
    data.write_all_labels(truth_of(3))
    assert data.check(run_tool)[0] == 0
    spoil(data)
    code, found, _ = data.check(run_tool)
    finding = next(f for f in found["findings"] if f["kind"] == kind)
    assert code == 1 and any(place in name for name in finding["files"])
    cfg = load_config(data.config, data.words)
    with pytest.raises(DataError, match=place) as error:
        build_data(cfg, is_training=True)
    assert fix in str(error.value) and fix in finding["cure"]
    words = [*data.words, "TRAIN.save_path", data.root / "run/model"]
    assert_one_sentence(*run_tool("train", "--config", data.config, *words)[::2], place)
    samples = read_list(data.root / "train.txt", data.root, has_labels=True)
    with pytest.raises(DataError, match=place):
        Evaluator(
            samples,
            [],
            results=None,
            predict=None,
            skip_existing=False,
            label_map=label_map_of(cfg),
        )


def test_a_file_beyond_the_first_is_named_when_it_is_read(tmp_path: Path) -> None:
    data = Data(tmp_path, train=40)
    data.write_all_labels(truth_of(2))
    write_png(tmp_path / "train/1.png", truth_of(2), 1)  # not among those compared at the start
    loaded = build_data(load_config(data.config), is_training=True)
    assert loaded.load(0)[1].max() == 1
    with pytest.raises(DataError, match=r"train/1\.png has 1-bit ids among 8-bit labels"):
        loaded.load(1)


def test_contradicting_palettes_of_class_colours_are_read_by_colour(
    data: Data, run_tool: RunTool
) -> None:
    one_palette(data)
    np.savetxt(data.root / "colors.txt", COLORS, fmt="%d")
    label_map = label_map_of(
        load_config(data.config, ["DATA.label_map", str(data.root / "colors.txt")])
    )
    for path in data.root.glob("*/*.png"):
        np.testing.assert_array_equal(load_label(path, label_map), truth_of(3))


@pytest.mark.parametrize("half", [np.s_[:12], np.s_[12:], np.s_[:, :16], np.s_[:, 16:]])
def test_label_that_is_half_void_is_named(
    data: Data, run_tool: RunTool, caplog: pytest.LogCaptureFixture, half: Sequence
) -> None:
    data.write_all_labels(truth_of(3))
    label = truth_of(3)
    label[half] = VOID
    data.write_label("train/2.png", label)
    code, found, _ = data.check(run_tool)
    assert code == 1 and found["findings"][0]["kind"] == "half-void"
    (name,) = found["findings"][0]["files"]
    assert name.startswith(str(data.root / "train/2.png"))
    build_data(load_config(data.config), is_training=True)
    assert "half, unlike most other labels" in caplog.text
    data.write_all_labels(label)  # in all labels, so it is intended
    assert "half-void" not in {f["kind"] for f in data.check(run_tool)[1]["findings"]}
