"""Submission files for evaluation servers."""

from pathlib import Path

import numpy as np
import pytest

from tests.conftest import RunTool, assert_one_sentence
from util.data.label_map import load_export, load_label_map
from util.error import ConfigError
from util.evaluation.submission import check_names


@pytest.mark.parametrize(("name", "classes"), [("cityscapes", 19), ("ade20k", 150)])
def test_an_export_is_the_label_map_backwards(name: str, classes: int) -> None:
    saved = load_export(name, classes=classes)
    assert saved is not None
    label_map = load_label_map(name, ignore_ids=(), classes=classes, ignore_label=255)
    back = label_map.apply(saved.astype(np.uint8), Path("saved.png"))
    np.testing.assert_array_equal(back, np.arange(classes))


def test_custom_and_invalid_exports() -> None:
    saved = load_export({0: 5, 1: 6, 2: 0}, classes=3)
    assert saved is not None and saved.tolist() == [5, 6, 0]
    assert load_export("", classes=3) is None
    for setting, part in (
        ({0: 5, 1: 6}, r"maps 2 classes, 0\.\.1, but DATA.classes is 3"),
        ("cityscapes", r"maps 19 classes, 0\.\.18, but DATA.classes is 3"),
        ({0: 5, 1: 6, 2: 70000}, r"ids 5\.\.70000: PNG files hold 0\.\.65535"),
    ):
        with pytest.raises(ConfigError, match=part):
            load_export(setting, classes=3)


def test_official_names() -> None:
    official = ["berlin/berlin_000000_000019_leftImg8bit", "bonn/bonn_000000_000019_leftImg8bit"]
    check_names("cityscapes", official)
    check_names({0: 1}, ["a/x", "b/y", "a/x"])
    with pytest.raises(ConfigError, match=r"official names such as berlin.*got x\.png"):
        check_names("cityscapes", ["a/x"])
    with pytest.raises(ConfigError, match="a/x and b/x have the same file name"):
        check_names("ade20k", ["a/x", "b/x"])


def test_a_misspelt_export(tiny: Path, run_tool: RunTool) -> None:
    code, _, err = run_tool("test", "--config", tiny, "TEST.export", "cityscape")
    assert_one_sentence(code, err, "one of cityscapes, ade20k", "nearest: cityscapes")
