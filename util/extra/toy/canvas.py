"""A canvas for scenes in metres (x right, y up, z forward), seen by a pinhole camera."""

import cv2
import numpy as np

Rng = np.random.Generator
X, Y, Z = range(3)
ANGLES = np.linspace(0, 2 * np.pi, 16, endpoint=False)
CIRCLE = np.stack((np.cos(ANGLES), np.sin(ANGLES)), -1)  # (16, 2)


class Canvas:
    """Image and label at twice the final size, for smooth image edges and sharp label edges."""

    def __init__(self, rng: Rng, height: int, width: int) -> None:
        self.image = np.zeros((2 * height, 2 * width, 3), np.uint8)
        self.label = np.zeros((2 * height, 2 * width), np.uint8)
        self.scale = np.array((2 * width / 320, 2 * height / 240))  # the frame is 320x240 units
        self.vanishing = np.array((rng.uniform(125, 195), rng.uniform(98, 122)))
        self.camera = np.array((rng.uniform(-0.8, 1.2), rng.uniform(1.7, 2.1)))
        self.focal, self.clear_depth = rng.uniform(215, 250), rng.uniform(110, 200)
        self.haze = np.zeros(3)

    def fill(self, points: np.ndarray, color: np.ndarray, class_id: int | None = None) -> None:
        """Paint polygons (..., n, 3) in order, in one colour (3,) or one each, fading into haze.

        `class_id` None leaves the label unchanged.
        """
        offset = (points[..., :2] - self.camera) * (self.focal, -self.focal) / points[..., 2:]
        units = np.round((self.vanishing + offset) * self.scale * 16).astype(np.int32)
        polygons = units.reshape(-1, *units.shape[-2:])  # in 1/16 pixels
        air = 1 - np.exp(-points[..., 2].min() / self.clear_depth)
        colors = np.clip(np.asarray(color) * (1 - air) + self.haze * air, 0, 255)
        for polygon, rgb in zip(polygons, np.broadcast_to(colors, (len(polygons), 3)), strict=True):
            cv2.fillPoly(self.image, [polygon], rgb.tolist(), cv2.LINE_8, 4)
            if class_id is not None:
                cv2.fillPoly(self.label, [polygon], class_id, cv2.LINE_8, 4)

    def depth_in_frame(self, x: float, margin: float) -> float:
        """Return the depth beyond which position x is at least `margin` units inside the frame."""
        offset = x - self.camera[0]
        room = 320 - self.vanishing[0] if offset > 0 else self.vanishing[0]
        return self.focal * abs(offset) / (room - margin)


def rect(a0: float, a1: float, b0: float, b1: float) -> np.ndarray:
    """Return the corners (4, 2) of a rectangle."""
    return np.array(((a0, b0), (a1, b0), (a1, b1), (a0, b1)))


def plane(points: np.ndarray, axis: int, at: float = 0) -> np.ndarray:
    """Place points (..., 2) in the plane where coordinate `axis` (X, Y or Z) is `at`: (..., 3)."""
    return np.insert(points, axis, at, -1)


def pick(rng: Rng, palette: np.ndarray, spread: float = 10) -> np.ndarray:
    """Return a random colour of a palette (n, 3), slightly varied."""
    return palette[rng.integers(len(palette))] + rng.normal(0, spread, 3)


def noise(rng: Rng, shape: tuple[int, int], bumps: int) -> np.ndarray:
    """Return smooth noise of about unit variance, with `bumps` bumps along the height."""
    coarse = rng.standard_normal((bumps, bumps * 4 // 3), np.float32)
    return cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_CUBIC)
