"""Makes a painted scene look photographed, and its label look drawn by an annotator."""

import cv2
import numpy as np

from util.extra.toy.canvas import CAR, LAMP, PERSON, SIGN, TREE, VOID, Rng, smooth_noise

# Strength of the surface noise by class id: grains of about 1, 3 and 20 px.
TEXTURE = np.zeros((256, 3), np.float32)
TEXTURE[:10] = (
    (0, 0, 0), (3, 4, 5), (6, 4, 5), (3, 5, 4), (10, 12, 4),
    (1, 1, 4), (3, 3, 2), (1, 1, 2), (1, 2, 2), (10, 6, 8),
)  # fmt: skip


def photograph(rng: Rng, image: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Surface texture, light, contrast, colour cast, lens blur and sensor noise."""
    shape = label.shape
    strength = TEXTURE[label]
    grain = rng.standard_normal((3, *shape), np.float32)
    texture = grain[0] * strength[..., 0]
    # The blur takes about 2/3 of the amplitude away; the factor gives it back.
    texture += 3 * cv2.GaussianBlur(grain[1], (0, 0), 1.2) * strength[..., 1]
    texture += smooth_noise(rng, shape, 12) * strength[..., 2]
    photo = image.astype(np.float32) + texture[..., None]
    light = rng.uniform(0.82, 1.1) * (1 + 0.06 * smooth_noise(rng, shape, 3))
    cast = rng.normal(1, 0.03, 3).astype(np.float32)
    photo = (photo * light[..., None] * cast - 118) * rng.uniform(0.85, 1.12) + 118
    photo = cv2.GaussianBlur(photo, (0, 0), rng.uniform(0.35, 0.65))
    photo += grain[2, ..., None] * rng.uniform(1, 4)
    return np.clip(photo, 0, 255).astype(np.uint8)


def mark_outlines(rng: Rng, label: np.ndarray) -> np.ndarray:
    """A thin unlabeled band around whatever stands on the ground, as annotators leave it.

    It lies outside the objects, which are too thin to lose a pixel on each side.
    """
    width = int(rng.integers(0, 3))
    objects = np.isin(label, (TREE, CAR, PERSON, SIGN, LAMP)).astype(np.uint8)
    grown = cv2.dilate(objects, np.ones((2 * width + 1, 2 * width + 1), np.uint8))
    return np.where(grown > objects, np.uint8(VOID), label)
