"""Images of the report, embedded as data URLs: image, label, prediction, errors."""

import base64
from dataclasses import dataclass, replace
from io import BytesIO

import cv2
import numpy as np
from PIL import Image

from util.palette import colorize

ERROR = np.array([226, 48, 48], np.uint8)
VOID = np.array([0, 0, 0], np.uint8)  # as in `colorize`
SMALLEST_CROP = 96  # pixels, so that small objects are shown in context
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
        """Crop a square around the largest region of class `true` predicted as `given`."""
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
    """Shrink to a long side of at most `side` pixels; ids by nearest neighbour."""
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
    """Draw the image in pale gray, wrong pixels in ERROR and unlabelled ones in VOID."""
    gray = cv2.cvtColor(example.image, cv2.COLOR_RGB2GRAY)
    out = np.repeat((128 + gray // 2)[..., None], 3, axis=2)
    out[example.label != example.pred] = ERROR
    out[example.label >= classes] = VOID
    return out


def panels(example: Example, colors: np.ndarray) -> list[tuple[str, str]]:
    """Return (caption, data URL) of image, label, prediction and errors."""
    wrong = ("errors", _jpeg(errors(example, len(colors))))
    return [("image", _jpeg(example.image)), *_maps(example, colors), wrong]


def pair_panels(
    example: Example, colors: np.ndarray, pair: tuple[int, int]
) -> list[tuple[str, str]]:
    """Return (caption, data URL) of image with outlined confusion, label and prediction."""
    confused = ((example.label == pair[0]) & (example.pred == pair[1])).astype(np.uint8)
    outlines, _ = cv2.findContours(confused, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    image = cv2.drawContours(np.ascontiguousarray(example.image), outlines, -1, (0, 0, 0), 3)
    image = cv2.drawContours(image, outlines, -1, (255, 230, 0), 1)
    return [("image", _jpeg(image)), *_maps(example, colors)]


def _maps(example: Example, colors: np.ndarray) -> list[tuple[str, str]]:
    maps = {"label": example.label, "prediction": example.pred}
    return [(what, _png(colorize(ids, colors))) for what, ids in maps.items()]


def _jpeg(image: np.ndarray) -> str:
    return _data(image, "JPEG", quality=JPEG_QUALITY)


def _png(image: np.ndarray) -> str:
    # PNG is smaller and sharper for flat colours.
    return _data(image, "PNG", compress_level=9)


def _data(image: np.ndarray, kind: str, **options: int) -> str:
    buffer = BytesIO()
    Image.fromarray(image).save(buffer, format=kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"
