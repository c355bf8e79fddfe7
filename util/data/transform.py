"""Joint augmentation of an image and its label: draw random numbers first, then apply them.

Transforms take an image (H, W, 3), float32 RGB in 0..255, and a label (H, W) int32, draw from the
random generator of the sample, and return new arrays.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

# RGB mean and standard deviation of ImageNet on the scale 0..255
MEAN = (0.485 * 255, 0.456 * 255, 0.406 * 255)
STD = (0.229 * 255, 0.224 * 255, 0.225 * 255)
PROBABILITY = 0.5  # of each optional step
BLUR = 5  # kernel size in pixels
Pair = tuple[np.ndarray, np.ndarray]  # (image, label)
Tensors = tuple[Tensor, Tensor]  # (image, label)
Box = tuple[slice, slice]  # (rows, columns)


class Transform(Protocol):
    """One step: `draw` makes all random decisions, `apply` is a pure function of them."""

    def draw(self, rng: Generator) -> Any: ...

    def apply(self, image: np.ndarray, label: np.ndarray, drawn: Any) -> Pair: ...


@dataclass(frozen=True)
class RandomScale:
    """Resize by a factor from [low, high): image bilinear, label nearest neighbour."""

    low: float
    high: float

    def draw(self, rng: Generator) -> float:
        return rng.uniform(self.low, self.high)

    def apply(self, image: np.ndarray, label: np.ndarray, drawn: float) -> Pair:
        size = scaled_size(label.shape, drawn)[::-1]
        return (
            cv2.resize(image, size, interpolation=cv2.INTER_LINEAR),
            cv2.resize(label, size, interpolation=cv2.INTER_NEAREST),
        )


@dataclass(frozen=True)
class RandomRotate:
    """With probability 0.5 rotate about the centre by an angle from [low, high) degrees.

    Exposed areas are filled with the mean colour / ignore_label.
    """

    low: float
    high: float
    ignore_label: int

    def draw(self, rng: Generator) -> float | None:
        angle = rng.uniform(self.low, self.high)
        return angle if rng.random() < PROBABILITY else None

    def apply(self, image: np.ndarray, label: np.ndarray, drawn: float | None) -> Pair:
        if drawn is None:
            return image, label
        height, width = label.shape
        matrix = cv2.getRotationMatrix2D((width / 2, height / 2), drawn, 1)
        size, border = (width, height), cv2.BORDER_CONSTANT
        image = cv2.warpAffine(
            image, matrix, size, flags=cv2.INTER_LINEAR, borderMode=border, borderValue=MEAN
        )
        # warpAffine lacks 32-bit integers; float32 represents ids up to 2**24 exactly.
        label = cv2.warpAffine(
            label.astype(np.float32),
            matrix,
            size,
            flags=cv2.INTER_NEAREST,
            borderMode=border,
            borderValue=self.ignore_label,
        )
        return image, label.astype(np.int32)


@dataclass(frozen=True)
class RandomBlur:
    """With probability 0.5 blur the image: Gaussian 5x5, sigma 1.1 (OpenCV's default for 5x5)."""

    def draw(self, rng: Generator) -> bool:
        return rng.random() < PROBABILITY

    def apply(self, image: np.ndarray, label: np.ndarray, drawn: bool) -> Pair:
        return (cv2.GaussianBlur(image, (BLUR, BLUR), 0) if drawn else image), label


@dataclass(frozen=True)
class RandomFlip:
    """With probability 0.5 flip horizontally."""

    def draw(self, rng: Generator) -> bool:
        return rng.random() < PROBABILITY

    def apply(self, image: np.ndarray, label: np.ndarray, drawn: bool) -> Pair:
        return (image[:, ::-1], label[:, ::-1]) if drawn else (image, label)


@dataclass(frozen=True)
class Crop:
    """Random crop of height x width; smaller images are first padded with mean / ignore_label.

    Draws the position (y, x) as fractions of the possible range.
    """

    height: int
    width: int
    ignore_label: int

    def draw(self, rng: Generator) -> tuple[float, float]:
        return rng.random(), rng.random()

    def apply(self, image: np.ndarray, label: np.ndarray, drawn: tuple[float, float]) -> Pair:
        rows, columns = self.window(label.shape, drawn)
        top, left = max(0, -rows.start), max(0, -columns.start)
        inside = slice(rows.start + top, rows.stop), slice(columns.start + left, columns.stop)
        image, label = image[inside], label[inside]
        if label.shape != (self.height, self.width):
            bottom, right = self.height - top - label.shape[0], self.width - left - label.shape[1]
            sides = top, bottom, left, right, cv2.BORDER_CONSTANT
            image = cv2.copyMakeBorder(image, *sides, value=MEAN)
            label = cv2.copyMakeBorder(label, *sides, value=self.ignore_label)
        return image, label

    def window(self, shape: tuple[int, ...], drawn: tuple[float, float]) -> Box:
        """Return rows and columns of the crop; they extend beyond images smaller than the crop."""
        y, x = (
            self._start(max(0, side - wanted), position) - max(0, wanted - side) // 2
            for side, wanted, position in zip(shape, (self.height, self.width), drawn, strict=True)
        )
        return slice(y, y + self.height), slice(x, x + self.width)

    def _start(self, free: int, position: float) -> int:
        return int(position * (free + 1))


class CenterCrop(Crop):
    """Crop at the centre."""

    def draw(self, rng: Generator) -> tuple[float, float]:
        return 0.5, 0.5

    def _start(self, free: int, position: float) -> int:
        return free // 2


@dataclass(frozen=True)
class Compose:
    """Apply all steps, then convert: image (3, H, W) float32 normalised, label (H, W) int64."""

    steps: Sequence[Transform]

    def __call__(self, image: np.ndarray, label: np.ndarray, rng: Generator) -> Tensors:
        drawn = [step.draw(rng) for step in self.steps]
        image, label = image.astype(np.float32), label.astype(np.int32)
        for step, numbers in zip(self.steps, drawn, strict=True):
            image, label = step.apply(image, label, numbers)
        image = (image - np.array(MEAN, np.float32)) / np.array(STD, np.float32)
        return (
            torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))),
            torch.from_numpy(label.astype(np.int64)),
        )


def scaled_size(shape: tuple[int, ...], factor: float) -> tuple[int, int]:
    """Scale (height, width) by a factor; sides are at least one pixel."""
    return max(1, round(shape[0] * factor)), max(1, round(shape[1] * factor))


def denormalise(image: Tensor) -> np.ndarray:
    """Convert an image (3, H, W), normalised or uint8, to RGB (H, W, 3) uint8."""
    if image.dtype == torch.uint8:
        return image.cpu().permute(1, 2, 0).numpy()
    pixels = image.float().cpu().permute(1, 2, 0).numpy()
    pixels = pixels * np.array(STD, np.float32) + np.array(MEAN, np.float32)
    return np.clip(np.round(pixels), 0, 255).astype(np.uint8)


def train_transform(
    crop: tuple[int, int],
    *,
    scale: tuple[float, float],
    rotate: tuple[float, float],
    ignore_label: int,
) -> Compose:
    """Return the training preset: scale, rotate, blur, flip, random crop (height, width)."""
    return Compose(
        [
            RandomScale(*scale),
            RandomRotate(*rotate, ignore_label),
            RandomBlur(),
            RandomFlip(),
            Crop(*crop, ignore_label),
        ]
    )


def val_transform(crop: tuple[int, int], *, ignore_label: int) -> Compose:
    """Return the validation preset: centre crop (height, width)."""
    return Compose([CenterCrop(*crop, ignore_label)])
