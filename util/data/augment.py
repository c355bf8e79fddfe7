"""The training augmentation of transform.py as one warp of the crop window, in uint8.

Scale, rotation, flip and crop are affine maps, and so is their product: it takes each pixel of the
crop straight to its place in the image, so only what the crop shows is computed, and interpolated
once. The numbers are those that the steps of `train_transform` draw, in their order; the steps one
after another remain the reference. Normalisation is left to the device.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.random import Generator

from util.data.transform import BLUR, MEAN, Box, Compose, Crop, Tensors, scaled_size

FILL = tuple(round(value) for value in MEAN)  # what surrounds an image
FUSED = 5  # steps: scale, rotate, blur, flip, crop


@dataclass(frozen=True)
class FusedAugmentation:
    """The steps of `train_transform` up to the crop at once, then those after it.

    image (H, W, 3) uint8, label (H, W) of ids -> image (3, h, w) uint8, label (h, w) uint8, or
    int32 if `largest_id` is above 255.
    """

    steps: Compose
    largest_id: int  # that a label may hold

    def __call__(self, image: np.ndarray, label: np.ndarray, rng: Generator) -> Tensors:
        drawn = [step.draw(rng) for step in self.steps.steps]
        scale, angle, is_blurred, is_flipped, place = drawn[:FUSED]
        crop = self.steps.steps[FUSED - 1]
        assert isinstance(crop, Crop)
        warp = Warp(label.shape, scaled_size(label.shape, scale), angle, is_flipped)
        window = crop.window(warp.scaled, place)
        shown = warp.clip(window)
        inside = _relative(shown, window)  # all of the crop, or what the image covers of it

        found = np.empty((3, crop.height, crop.width), np.uint8)
        pixels = warp.image(image, shown, is_blurred=is_blurred)
        if pixels.shape[:2] != found.shape[1:]:
            found[:] = np.reshape(FILL, (3, 1, 1))
        cv2.mixChannels([pixels], list(found[(slice(None), *inside)]), [0, 0, 1, 1, 2, 2])

        kind = np.uint8 if self.largest_id <= 255 else np.int32
        ids = warp.label(label, shown, fill=crop.ignore_label).astype(kind, copy=False)
        if ids.shape != found.shape[1:]:
            small, ids = ids, np.full(found.shape[1:], crop.ignore_label, ids.dtype)
            ids[inside] = small
        for step, numbers in zip(self.steps.steps[FUSED:], drawn[FUSED:], strict=True):
            changed, ids = step.apply(
                found.transpose(1, 2, 0).astype(np.float32), ids.astype(np.int32), numbers
            )
            found = np.ascontiguousarray(np.clip(np.round(changed), 0, 255).transpose(2, 0, 1))
            found, ids = found.astype(np.uint8), ids.astype(kind)
        return torch.from_numpy(found), torch.from_numpy(ids)


@dataclass(frozen=True)
class Warp:
    """An image of `size`, resized to `scaled`, rotated about its centre, mirrored: each (h, w)."""

    size: tuple[int, int]
    scaled: tuple[int, int]
    angle: float | None
    is_flipped: bool

    def clip(self, window: Box, *, margin: int = 0) -> Box:
        """The part of a window, with a margin around it, that lies in the scaled image."""
        rows, columns = (
            slice(max(0, part.start - margin), min(side, part.stop + margin))
            for part, side in zip(window, self.scaled, strict=True)
        )
        return rows, columns

    def image(self, image: np.ndarray, box: Box, *, is_blurred: bool) -> np.ndarray:
        """The pixels of a box as (h, w, 4): four channels are warped faster than three."""
        wide = self.clip(box, margin=BLUR // 2) if is_blurred else box
        factor_y, factor_x = self._factors()
        # cv2.resize takes pixels for squares: their centres are at (i + 0.5) * factor - 0.5.
        resize = _matrix((factor_x, factor_y), ((factor_x - 1) / 2, (factor_y - 1) / 2))
        found = _warp(
            image,
            resize @ self._turn() @ _matrix((1, 1), (wide[1].start, wide[0].start)),
            wide,
            flags=cv2.INTER_LINEAR,
            # Resizing repeats the last row, rotating brings in the surroundings.
            border=cv2.BORDER_REPLICATE if self.angle is None else cv2.BORDER_CONSTANT,
            fill=FILL,
        )
        if is_blurred:
            found = cv2.GaussianBlur(found, (BLUR, BLUR), 0)[_relative(box, wide)]
        return found

    def label(self, label: np.ndarray, box: Box, *, fill: int) -> np.ndarray:
        """The ids of a box (h, w). cv2.resize takes pixel floor(i * factor) for the nearest."""
        factors = self._factors()
        if self.angle is None:
            rows, columns = (np.arange(part.start, part.stop) for part in box)
            if self.is_flipped:
                columns = self.scaled[1] - 1 - columns
            rows, columns = (
                np.minimum((places * factor).astype(np.int64), side - 1)
                for places, factor, side in zip((rows, columns), factors, self.size, strict=True)
            )
            first, last = columns.min(), columns.max() + 1
            return np.take(label[rows, first:last], columns - first, axis=1)
        resize = _matrix(factors[::-1], (-0.5, -0.5))  # rounding to the nearest is then the floor
        matrix = resize @ self._turn() @ _matrix((1, 1), (box[1].start, box[0].start))
        constant = cv2.BORDER_CONSTANT
        return _warp(label, matrix, box, flags=cv2.INTER_NEAREST, border=constant, fill=fill)

    def _factors(self) -> tuple[float, float]:
        # As cv2.resize computes them, to the last bit.
        return 1 / (self.scaled[0] / self.size[0]), 1 / (self.scaled[1] / self.size[1])

    def _turn(self) -> np.ndarray:
        """From places (x, y, 1) in the result to those in the scaled image."""
        height, width = self.scaled
        matrix = _matrix((-1, 1), (width - 1, 0)) if self.is_flipped else np.eye(3)
        if self.angle is not None:
            rotate = cv2.getRotationMatrix2D((width / 2, height / 2), self.angle, 1)
            matrix = np.vstack([cv2.invertAffineTransform(rotate), (0, 0, 1)]) @ matrix
        return matrix


def _warp(
    image: np.ndarray,
    matrix: np.ndarray,
    box: Box,
    *,
    flags: int,
    border: int,
    fill: int | tuple[int, ...],
) -> np.ndarray:
    """An array of the box's size, its pixel (x, y) from place `matrix` @ (x, y, 1) of the image.

    Only the part of the image that this needs is looked at; (H, W, 3) becomes four channels.
    """
    height, width = (part.stop - part.start for part in box)
    corners = matrix[:2] @ np.array(
        [(0, width - 1, 0, width - 1), (0, 0, height - 1, height - 1), (1, 1, 1, 1)], np.float64
    )
    x, y = (
        slice(
            int(np.clip(np.floor(places.min()) - 1, 0, side - 1)),
            int(np.clip(np.ceil(places.max()) + 2, 1, side)),
        )
        for places, side in zip(corners, image.shape[1::-1], strict=True)
    )
    part = image[y, x]
    if part.ndim == 3:
        part = cv2.cvtColor(part, cv2.COLOR_RGB2RGBA)
    elif part.dtype != np.uint8 or (isinstance(fill, int) and fill > 255):
        # warpAffine has no 32-bit integers; float32 holds ids up to 2**24 exactly.
        part = part.astype(np.float32)
    matrix = _matrix((1, 1), (-x.start, -y.start)) @ matrix
    flags |= cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(
        part, matrix[:2], (width, height), flags=flags, borderMode=border, borderValue=fill
    )


def _matrix(factors: tuple[float, float], shift: tuple[float, float]) -> np.ndarray:
    """(x, y, 1) -> (factor x * x + shift x, factor y * y + shift y, 1)."""
    return np.array([(factors[0], 0, shift[0]), (0, factors[1], shift[1]), (0, 0, 1)], np.float64)


def _relative(box: Box, to: Box) -> Box:
    """A box counted from the first row and column of another one."""
    rows, columns = (
        slice(part.start - other.start, part.stop - other.start)
        for part, other in zip(box, to, strict=True)
    )
    return rows, columns
