"""Class names and colours; rendering label maps as colour images, overlays and legends."""

import colorsys
import logging
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from util.error import ConfigError, read_text, show

log = logging.getLogger("semseg")
FONT_SIZE = 12
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
FONTS = (
    "DejaVuSans.ttf",
    "Arial Unicode.ttf",
    "PingFang.ttc",
    "arial.ttf",
    "msyh.ttc",
    "malgun.ttf",
)


def load_names(path: str, classes: int) -> list[str]:
    """Read class names, one per line; without a path return `class 0`, `class 1`, ...

    Raises ConfigError unless there are `classes` different names.
    """
    if not path:
        return [f"class {i}" for i in range(classes)]
    names = [show(line.strip()) for line in _lines(path, "TEST.names_path")]
    for number, name in enumerate(names, 1):
        place = f"TEST.names_path {path} line {number}"
        if name.startswith("#"):
            raise ConfigError(
                f"{place} '{name}' looks like a comment, but each line names a class: remove it"
            )
        if not name:
            raise ConfigError(
                f"{place} is empty, but each line names a class: remove it or write a name"
            )
        if (first := names.index(name) + 1) < number:
            raise ConfigError(
                f"{place} repeats '{name}' of line {first}: give each class its own name"
            )
    if len(names) != classes:
        raise ConfigError(
            f"TEST.names_path {path} holds {len(names)} names, but DATA.classes is {classes}: "
            "one name per line, in the order of the ids"
        )
    return names


def load_colors(path: str, classes: int) -> np.ndarray:
    """Read class colours, one `R G B` per line, as (classes, 3) uint8; generated without a path.

    Raises ConfigError unless there are `classes` valid colours.
    """
    if not path:
        return distinct_colors(classes)
    rows = [line.split() for line in _lines(path, "TEST.colors_path")]
    if not all(len(row) == 3 and all(_is_byte(word) for word in row) for row in rows):
        raise ConfigError(f"TEST.colors_path {path} must hold one `R G B` per line, each 0..255")
    colors = [[int(word) for word in row] for row in rows]
    if len(colors) != classes:
        raise ConfigError(
            f"TEST.colors_path {path} holds {len(colors)} colours, but DATA.classes is {classes}: "
            "one `R G B` per line, in the order of the ids"
        )
    return np.array(colors, np.uint8)


def _is_byte(word: str) -> bool:
    return word.isascii() and word.isdigit() and len(word) <= 3 and int(word) <= 255


def _lines(path: str, key: str) -> list[str]:
    if not Path(path).is_file():
        raise ConfigError(f"{key}: no file {path}; leave the key empty for generated ones")
    return read_text(path, ConfigError).rstrip().splitlines()


def distinct_colors(count: int) -> np.ndarray:
    """Generate (count, 3) uint8 RGB with hues a golden angle apart, so that adjacent ids differ."""
    colors = [
        colorsys.hsv_to_rgb(i * 0.618034 % 1, (0.85, 0.55)[i % 2], (0.95, 0.7, 0.5)[i % 3])
        for i in range(count)
    ]
    return np.round(np.array(colors) * 255).astype(np.uint8)


def colorize(label: np.ndarray, colors: np.ndarray) -> np.ndarray:
    """Render a label map (H, W) as RGB (H, W, 3) uint8; ids without a colour (void) are black."""
    table = np.zeros((max(256, len(colors) + 1), 3), np.uint8)
    table[: len(colors)] = colors
    if label.dtype == np.uint8:
        return cv2.LUT(cv2.merge([label] * 3), table[None, :256])  # 5 times as fast
    return table[np.minimum(label, len(colors)).astype(np.intp)]


def overlay(image: np.ndarray, label: np.ndarray, colors: np.ndarray) -> np.ndarray:
    """Tint an image (H, W, 3) by class; void pixels are unchanged."""
    tinted = cv2.addWeighted(image, 0.5, colorize(label, colors), 0.5, 0)
    return np.where((label < len(colors))[..., None], tinted, image)


def heat_overlay(
    image: np.ndarray, heat: np.ndarray, box: tuple[int, int, int, int], pixel: tuple[int, int]
) -> np.ndarray:
    """Draw weights (h, w) over the region `box` (top, left, height, width) of an image.

    Colours run from blue (smallest weight) to red (largest); a ring marks `pixel` (x, y).
    """
    top, left, height, width = box
    heat = (heat - heat.min()) / max(float(np.ptp(heat)), 1e-12)
    heat = cv2.resize(heat.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    colored = cv2.applyColorMap(np.round(heat * 255).astype(np.uint8), cv2.COLORMAP_JET)[..., ::-1]
    out = image.copy()
    y0, x0 = max(0, top), max(0, left)
    y1, x1 = min(image.shape[0], top + height), min(image.shape[1], left + width)
    part = np.ascontiguousarray(colored[y0 - top : y1 - top, x0 - left : x1 - left])
    out[y0:y1, x0:x1] = cv2.addWeighted(image[y0:y1, x0:x1], 0.5, part, 0.5, 0)
    radius = max(3, min(image.shape[:2]) // 60)
    cv2.circle(out, pixel, radius, (255, 255, 255), 2, cv2.LINE_AA)
    return out


def class_shares(label: np.ndarray, classes: int) -> np.ndarray:
    """Return the fraction of a label map (H, W) that each class covers: (classes,)."""
    return np.bincount(label.ravel(), minlength=classes)[:classes] / label.size


def side_by_side(
    image: np.ndarray, label: np.ndarray, pred: np.ndarray, colors: np.ndarray
) -> np.ndarray:
    """Join image | label | prediction into one image (H, 3W, 3)."""
    return np.hstack([image, colorize(label, colors), colorize(pred, colors)])


def legend(
    names: list[str], colors: np.ndarray, width: int, *, height: int | None = None
) -> np.ndarray:
    """Draw a legend (h, width, 3) of colour patches and class names, to be put below an image.

    Without `height` it is as high as needed; with it, the last names may be cut off.
    """
    row, patch, margin = 18, 12, 6
    places, x, y = [], margin, 0
    for name in names:
        font, text = font_for(name)
        needed = patch + 2 * margin + round(font.getlength(text))
        if x > margin and x + needed > width:
            x, y = margin, y + row
        places.append((text, font, x, y))
        x += needed + margin
    strip = Image.new("RGB", (width, max(y + row, height or 0)), "white")
    draw = ImageDraw.Draw(strip)
    for (text, font, x, y), color in zip(places, colors.tolist(), strict=True):
        draw.rectangle((x, y + 3, x + patch - 1, y + 2 + patch), fill=tuple(color))
        draw.text((x + patch + margin, y + 13), text, fill="black", font=font, anchor="ls")
    return np.array(strip)[:height]


def font_for(text: str) -> tuple[Font, str]:
    """Return an installed font that has all characters of a text, and the text.

    If there is none, non-ASCII characters are escaped, with a warning.
    """
    font = _font_with("".join(sorted({c for c in text if not c.isascii()})))
    if font:
        return font, text
    escaped = text.encode("ascii", "backslashreplace").decode()
    return ImageFont.load_default(FONT_SIZE), escaped


@cache
def _font_with(characters: str) -> Font | None:
    for font in _fonts(characters):
        missing = bytes(font.getmask("\U0010ffff"))  # the glyph drawn for missing characters
        if all(bytes(font.getmask(c)) != missing for c in characters):
            return font
    log.warning(
        f"no font here has all of '{characters}', which are shown as codes: install one, for "
        "example with `apt install fonts-noto-cjk`"
    )
    return None


def _fonts(characters: str) -> Iterator[Font]:
    """Yield Pillow's font, common fonts of Linux, macOS and Windows, and fontconfig's choice."""
    yield ImageFont.load_default(FONT_SIZE)
    codes = " ".join(f"{ord(c):x}" for c in characters)
    try:
        command = ["fc-list", "--format=%{file}\\n", f":charset={codes}"]
        listed = subprocess.run(command, capture_output=True, text=True, timeout=30).stdout
    except (OSError, subprocess.TimeoutExpired):
        listed = ""
    for name in (*FONTS, *sorted(listed.splitlines())):
        try:
            yield ImageFont.truetype(name, FONT_SIZE)
        except OSError:  # not installed, or a bitmap font
            continue
