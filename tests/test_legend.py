"""Legends: names are readable in any script, and distinct if no font has their characters."""

import logging
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import ImageFont

from util import palette
from util.palette import distinct_colors, font_for, legend


@pytest.fixture
def only_latin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Simulate a machine with no fonts other than Pillow's."""
    monkeypatch.setattr(palette, "_fonts", lambda _: iter([ImageFont.load_default(12)]))
    palette._font_with.cache_clear()
    yield
    palette._font_with.cache_clear()


def test_names_of_characters_that_no_font_has_are_told_apart(
    only_latin: None, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "semseg"):
        strips = [
            legend(names, distinct_colors(2), 300) for names in (["天空", "a"], ["道路", "a"])
        ]
        legend(["天空 51.2%"], distinct_colors(1), 300)
    assert not np.array_equal(*strips)
    assert font_for("天空 3%")[1] == "\\u5929\\u7a7a 3%"
    assert caplog.text.count("no font here has all of") == 2  # once for each


@pytest.mark.parametrize("text", ["road", "Straße", "дорога", "δρόμος", "天空", "하늘"])
def test_a_font_has_all_characters_or_they_are_escaped(text: str) -> None:
    font, shown = font_for(text)
    drawn = [bytes(font.getmask(c)) for c in shown]
    assert bytes(font.getmask("\U0010ffff")) not in drawn
    assert shown in (text, text.encode("ascii", "backslashreplace").decode())


def test_names_are_where_there_is_room() -> None:
    names = [f"class number {i}" for i in range(9)]
    strip = legend(names, distinct_colors(9), 300)
    assert strip.shape[1:] == (300, 3) and strip.shape[0] > 3 * 18
    for color in distinct_colors(9):  # each patch is complete
        assert (strip == color).all(axis=2).sum() == 12 * 12
    assert legend(names, distinct_colors(9), 300, height=54).shape == (54, 300, 3)
    assert legend([], distinct_colors(0), 300, height=54).shape == (54, 300, 3)
