"""Names and colours of classes; label maps as colour images, overlays and legends."""

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
    """Class names from a file, one a line; without a path `class 0`, `class 1`, ...

    Raises ConfigError when their number is not `classes`.
    """
    if not path:
        return [f"class {i}" for i in range(classes)]
    names = [show(line.strip()) for line in _lines(path, "TEST.names_path")]
    if len(names) != classes:
        raise ConfigError(
            f"TEST.names_path {path} holds {len(names)} names, but DATA.classes is {classes}: "
            "one name per line, in the order of the ids"
        )
    return names


def load_colors(path: str, classes: int) -> np.ndarray:
    """(classes, 3) uint8 RGB from a file of `R G B` lines; without a path `distinct_colors`."""
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
        raise ConfigError(f"{key}: no file {path}; leave the key empty to generate them")
    return read_text(path, ConfigError).rstrip().splitlines()


def distinct_colors(count: int) -> np.ndarray:
    """(count, 3) uint8 RGB; hues a golden angle apart, so that neighbours in id differ."""
    colors = [
        colorsys.hsv_to_rgb(i * 0.618034 % 1, (0.85, 0.55)[i % 2], (0.95, 0.7, 0.5)[i % 3])
        for i in range(count)
    ]
    return np.round(np.array(colors) * 255).astype(np.uint8)


def colorize(label: np.ndarray, colors: np.ndarray) -> np.ndarray:
    """Label map (H, W) -> RGB image (H, W, 3) uint8; ids without a colour (void) are black."""
    table = np.zeros((max(256, len(colors) + 1), 3), np.uint8)
    table[: len(colors)] = colors
    if label.dtype == np.uint8:
        return cv2.LUT(cv2.merge([label] * 3), table[None, :256])  # 5 times as fast
    return table[np.minimum(label, len(colors)).astype(np.intp)]


def overlay(image: np.ndarray, label: np.ndarray, colors: np.ndarray) -> np.ndarray:
    """The image (H, W, 3) tinted by class; void pixels keep the image as it is."""
    tinted = cv2.addWeighted(image, 0.5, colorize(label, colors), 0.5, 0)
    return np.where((label < len(colors))[..., None], tinted, image)


def heat_overlay(
    image: np.ndarray, heat: np.ndarray, box: tuple[int, int, int, int], pixel: tuple[int, int]
) -> np.ndarray:
    """A map of weights (h, w) over the part `box` (top, left, height, width) of an image, blue to
    red from its least to its greatest weight; a ring marks `pixel` (x, y)."""
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
    """Fraction of the pixels of a label map (H, W) that each class covers: (classes,)."""
    return np.bincount(label.ravel(), minlength=classes)[:classes] / label.size


def side_by_side(
    image: np.ndarray, label: np.ndarray, pred: np.ndarray, colors: np.ndarray
) -> np.ndarray:
    """image | label | prediction as one image (H, 3W, 3)."""
    return np.hstack([image, colorize(label, colors), colorize(pred, colors)])


def legend(
    names: list[str], colors: np.ndarray, width: int, *, height: int | None = None
) -> np.ndarray:
    """A strip (h, width, 3) of colour patches with the classes' names, to stand below an image.

    Its height is what the names need, or `height`: then the last ones may have no place.
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
    """A font of this machine that has all characters of a text, and that text.

    Where there is none, characters that are not ASCII are escaped, with a warning.
    """
    font = _font_with("".join(sorted({c for c in text if not c.isascii()})))
    if font:
        return font, text
    escaped = text.encode("ascii", "backslashreplace").decode()
    return ImageFont.load_default(FONT_SIZE), escaped


@cache
def _font_with(characters: str) -> Font | None:
    for font in _fonts(characters):
        missing = bytes(font.getmask("\U0010ffff"))  # what is drawn for a character it lacks
        if all(bytes(font.getmask(c)) != missing for c in characters):
            return font
    log.warning(
        f"no font here has all of '{characters}', they are shown as codes: install one, such as "
        "with `apt install fonts-noto-cjk`"
    )
    return None


def _fonts(characters: str) -> Iterator[Font]:
    """Pillow's own font, usual ones of Linux, macOS and Windows, and what fontconfig finds."""
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
        except OSError:  # not there, or without outlines
            continue
