"""Images of the report, as data inside the page: image, label, prediction, errors; a legend."""

import base64
from collections.abc import Iterable
from dataclasses import dataclass, replace
from html import escape
from io import BytesIO

import cv2
import numpy as np
from PIL import Image

from util.extra.report.charts import swatch
from util.palette import colorize

ERROR = np.array([226, 48, 48], np.uint8)
VOID = np.array([0, 0, 0], np.uint8)  # as in `colorize`
SMALLEST_CROP = 96  # pixels: a small object is shown with what surrounds it
JPEG_QUALITY = 80


@dataclass(frozen=True)
class Example:
    """Image `index` of the list: image (H, W, 3) uint8 RGB, label and pred (H, W) class ids."""

    name: str
    index: int
    image: np.ndarray
    label: np.ndarray
    pred: np.ndarray

    def around(self, true: int, given: int) -> "Example":
        """The square around the largest connected region of class `true` predicted `given`."""
        confused = ((self.label == true) & (self.pred == given)).astype(np.uint8)
        _, _, boxes, _ = cv2.connectedComponentsWithStats(confused)
        left, top, width, height, _ = boxes[1:][boxes[1:, cv2.CC_STAT_AREA].argmax()].tolist()
        side = min(max(SMALLEST_CROP, round(1.5 * max(width, height))), *self.label.shape)
        rows, columns = self.label.shape
        y = min(max(0, top + (height - side) // 2), rows - side)
        x = min(max(0, left + (width - side) // 2), columns - side)
        part = np.s_[y : y + side, x : x + side]
        return replace(self, image=self.image[part], label=self.label[part], pred=self.pred[part])


def shrunk(example: Example, side: int) -> Example:
    """With a long side of at most `side` pixels; ids by the nearest pixel."""
    height, width = example.label.shape
    factor = min(1.0, side / max(height, width))
    rows, columns = max(1, round(height * factor)), max(1, round(width * factor))
    nearest = np.ix_(np.arange(rows) * height // rows, np.arange(columns) * width // columns)
    return replace(
        example,
        image=cv2.resize(example.image, (columns, rows), interpolation=cv2.INTER_AREA),
        label=example.label[nearest],
        pred=example.pred[nearest],
    )


def errors(example: Example, classes: int) -> np.ndarray:
    """The image in pale gray, wrong pixels in ERROR, pixels without a label in VOID."""
    gray = cv2.cvtColor(example.image, cv2.COLOR_RGB2GRAY)
    out = np.repeat((128 + gray // 2)[..., None], 3, axis=2)
    out[example.label != example.pred] = ERROR
    out[example.label >= classes] = VOID
    return out


def image_figure(example: Example, colors: np.ndarray, *, note: str) -> str:
    """image | label | prediction | errors, with the image's name."""
    panels = [
        ("image", _jpeg(example.image)),
        ("label", _png(colorize(example.label, colors))),
        ("prediction", _png(colorize(example.pred, colors))),
        ("errors", _jpeg(errors(example, len(colors)))),
    ]
    name = escape(example.name)
    return (
        f'<figure><figcaption><b>{name}</b> <span class="muted">{escape(note)}</span></figcaption>'
        f'<div class="panels">{_panels(panels, name)}</div></figure>'
    )


def pair_figure(
    example: Example, colors: np.ndarray, *, pair: tuple[int, int], names: list[str], note: str
) -> str:
    """image, with the confused region outlined | label | prediction."""
    true, given = pair
    confused = ((example.label == true) & (example.pred == given)).astype(np.uint8)
    outlines, _ = cv2.findContours(confused, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    image = cv2.drawContours(np.ascontiguousarray(example.image), outlines, -1, (0, 0, 0), 3)
    image = cv2.drawContours(image, outlines, -1, (255, 230, 0), 1)
    panels = [
        ("image", _jpeg(image)),
        ("label", _png(colorize(example.label, colors))),
        ("prediction", _png(colorize(example.pred, colors))),
    ]
    return (
        f"<figure><figcaption>{swatch(colors[true])}<b>{escape(names[true])}</b> taken for "
        f"{swatch(colors[given])}<b>{escape(names[given])}</b>"
        f'<br><span class="muted">{escape(note)}; {escape(example.name)}</span></figcaption>'
        f'<div class="panels three">{_panels(panels, escape(example.name))}</div></figure>'
    )


def legend(names: list[str], colors: np.ndarray, examples: Iterable[Example]) -> str:
    """The colours of the classes that the examples show, and what black and red mean."""
    ids = {i for e in examples for i in np.unique([e.label, e.pred]).tolist()}
    items = [(colors[i], names[i]) for i in sorted(ids) if i < len(names)]
    items += [(VOID, "without a label"), (ERROR, "wrong")]
    listed = "".join(f"<li>{swatch(color)}{escape(name)}</li>" for color, name in items)
    return f'<ul class="legend">{listed}</ul>'


def _panels(panels: list[tuple[str, str]], name: str) -> str:
    return "".join(
        f'<div><img src="{source}" alt="{what} of {name}"><small>{what}</small></div>'
        for what, source in panels
    )


def _jpeg(image: np.ndarray) -> str:
    return _data(image, "JPEG", quality=JPEG_QUALITY)


def _png(image: np.ndarray) -> str:
    # Flat colours are smaller and sharper as PNG.
    return _data(image, "PNG", compress_level=9)


def _data(image: np.ndarray, kind: str, **options: int) -> str:
    buffer = BytesIO()
    Image.fromarray(image).save(buffer, format=kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"
