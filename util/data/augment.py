"""The training augmentation of transform.py as a single warp of the crop window, in uint8.

Scale, rotation, flip and crop are affine maps, and so is their composition, which takes each pixel
of the crop directly to its position in the image: only visible pixels are computed, and they are
interpolated once. The steps of `train_transform` draw the random numbers, in their order; applying
these steps one by one remains the reference. Normalisation is left to the device.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.random import Generator

from util.data.transform import BLUR, MEAN, Box, Compose, Crop, Tensors, scaled_size

FILL = tuple(round(value) for value in MEAN)  # colour outside the image
FUSED = 5  # steps in the warp: scale, rotate, blur, flip, crop


@dataclass(frozen=True)
class FusedAugmentation:
    """The steps of `train_transform` up to the crop in one pass, then any later steps one by one.

    Image (H, W, 3) uint8, label (H, W) of ids -> image (3, h, w) uint8, label (h, w) uint8, or
    int32 if `largest_id` exceeds 255.
    """

    steps: Compose
    largest_id: int  # the largest id a label may hold

    def __call__(self, image: np.ndarray, label: np.ndarray, rng: Generator) -> Tensors:
        drawn = [step.draw(rng) for step in self.steps.steps]
        scale, angle, is_blurred, is_flipped, position = drawn[:FUSED]
        crop = self.steps.steps[FUSED - 1]
        assert isinstance(crop, Crop)
        warp = Warp(label.shape, scaled_size(label.shape, scale), angle, is_flipped)
        window = crop.window(warp.scaled, position)
        visible = warp.clip(window)
        inside = _relative(visible, window)  # the part of the crop that the image covers

        out = np.empty((3, crop.height, crop.width), np.uint8)
        pixels = warp.image(image, visible, is_blurred=is_blurred)
        if pixels.shape[:2] != out.shape[1:]:
            out[:] = np.reshape(FILL, (3, 1, 1))
        cv2.mixChannels([pixels], list(out[(slice(None), *inside)]), [0, 0, 1, 1, 2, 2])

        id_type = np.uint8 if self.largest_id <= 255 else np.int32
        ids = warp.label(label, visible, fill=crop.ignore_label).astype(id_type, copy=False)
        if ids.shape != out.shape[1:]:
            small, ids = ids, np.full(out.shape[1:], crop.ignore_label, ids.dtype)
            ids[inside] = small
        for step, numbers in zip(self.steps.steps[FUSED:], drawn[FUSED:], strict=True):
            changed, ids = step.apply(
                out.transpose(1, 2, 0).astype(np.float32), ids.astype(np.int32), numbers
            )
            out = np.ascontiguousarray(np.clip(np.round(changed), 0, 255).transpose(2, 0, 1))
            out, ids = out.astype(np.uint8), ids.astype(id_type)
        return torch.from_numpy(out), torch.from_numpy(ids)


@dataclass(frozen=True)
class Warp:
    """Resize an image to `scaled`, rotate it by `angle` degrees about its centre, and mirror it.

    `size` is the size of the image; both sizes are (height, width). No rotation if `angle` is None.
    """

    size: tuple[int, int]
    scaled: tuple[int, int]
    angle: float | None
    is_flipped: bool

    def clip(self, window: Box, *, margin: int = 0) -> Box:
        """Extend a window by a margin and clip it to the scaled image."""
        rows, columns = (
            slice(max(0, part.start - margin), min(side, part.stop + margin))
            for part, side in zip(window, self.scaled, strict=True)
        )
        return rows, columns

    def image(self, image: np.ndarray, box: Box, *, is_blurred: bool) -> np.ndarray:
        """Return the pixels of a box, (h, w, 4): OpenCV warps four channels faster than three."""
        widened = self.clip(box, margin=BLUR // 2) if is_blurred else box
        factor_y, factor_x = self._factors()
        # cv2.resize treats pixels as squares: centre i is sampled at (i + 0.5) * factor - 0.5.
        resize = _matrix((factor_x, factor_y), ((factor_x - 1) / 2, (factor_y - 1) / 2))
        pixels = _warp(
            image,
            resize @ self._to_scaled() @ _matrix((1, 1), (widened[1].start, widened[0].start)),
            widened,
            flags=cv2.INTER_LINEAR,
            # Resizing replicates the border; rotating exposes the outside of the image.
            border=cv2.BORDER_REPLICATE if self.angle is None else cv2.BORDER_CONSTANT,
            fill=FILL,
        )
        if is_blurred:
            pixels = cv2.GaussianBlur(pixels, (BLUR, BLUR), 0)[_relative(box, widened)]
        return pixels

    def label(self, label: np.ndarray, box: Box, *, fill: int) -> np.ndarray:
        """Return the ids of a box, (h, w); as in cv2.resize, the nearest is floor(i * factor)."""
        factors = self._factors()
        if self.angle is None:
            rows, columns = (np.arange(part.start, part.stop) for part in box)
            if self.is_flipped:
                columns = self.scaled[1] - 1 - columns
            rows, columns = (
                np.minimum((indices * factor).astype(np.int64), side - 1)
                for indices, factor, side in zip((rows, columns), factors, self.size, strict=True)
            )
            first, last = columns.min(), columns.max() + 1
            return np.take(label[rows, first:last], columns - first, axis=1)
        resize = _matrix(factors[::-1], (-0.5, -0.5))  # rounding then equals the floor
        matrix = resize @ self._to_scaled() @ _matrix((1, 1), (box[1].start, box[0].start))
        constant = cv2.BORDER_CONSTANT
        return _warp(label, matrix, box, flags=cv2.INTER_NEAREST, border=constant, fill=fill)

    def _factors(self) -> tuple[float, float]:
        # Computed as in cv2.resize, to the last bit.
        return 1 / (self.scaled[0] / self.size[0]), 1 / (self.scaled[1] / self.size[1])

    def _to_scaled(self) -> np.ndarray:
        """Return the matrix from result to scaled image coordinates (x, y, 1)."""
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
    """Return an array of the box's size, pixel (x, y) sampled at `matrix` @ (x, y, 1) of the image.

    Only the part of the image that is needed is read; three channels become four.
    """
    height, width = (part.stop - part.start for part in box)
    corners = matrix[:2] @ np.array(
        [(0, width - 1, 0, width - 1), (0, 0, height - 1, height - 1), (1, 1, 1, 1)], np.float64
    )
    x, y = (
        slice(
            int(np.clip(np.floor(ends.min()) - 1, 0, side - 1)),
            int(np.clip(np.ceil(ends.max()) + 2, 1, side)),
        )
        for ends, side in zip(corners, image.shape[1::-1], strict=True)
    )
    part = image[y, x]
    if part.ndim == 3:
        part = cv2.cvtColor(part, cv2.COLOR_RGB2RGBA)
    elif part.dtype != np.uint8 or (isinstance(fill, int) and fill > 255):
        # warpAffine lacks 32-bit integers; float32 represents ids up to 2**24 exactly.
        part = part.astype(np.float32)
    matrix = _matrix((1, 1), (-x.start, -y.start)) @ matrix
    flags |= cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(
        part, matrix[:2], (width, height), flags=flags, borderMode=border, borderValue=fill
    )


def _matrix(factors: tuple[float, float], shift: tuple[float, float]) -> np.ndarray:
    """Return the matrix (x, y, 1) -> (factor_x * x + shift_x, factor_y * y + shift_y, 1)."""
    return np.array([(factors[0], 0, shift[0]), (0, factors[1], shift[1]), (0, 0, 1)], np.float64)


def _relative(box: Box, to: Box) -> Box:
    """Return a box relative to the first row and column of another one."""
    rows, columns = (
        slice(part.start - other.start, part.stop - other.start)
        for part, other in zip(box, to, strict=True)
    )
    return rows, columns
