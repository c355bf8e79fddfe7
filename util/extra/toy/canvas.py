"""What scenes are painted on and with: camera and canvas, shapes in metres, colours, noise."""

import cv2
import numpy as np

Rng = np.random.Generator
Color = tuple[float, float, float] | np.ndarray  # RGB, 0..255

SKY, BUILDING, ROAD, SIDEWALK, TREE, CAR, PERSON, SIGN, LAMP, GRASS = range(10)
VOID = 255

ANGLES = np.linspace(0, 2 * np.pi, 16, endpoint=False)
CIRCLE = np.stack((np.cos(ANGLES), np.sin(ANGLES), np.zeros(16)), -1)


class Canvas:
    """Image and label at twice the size asked for, and the camera that looks at the scene.

    Twice the size gives smooth edges in the image after averaging, while the label is sampled.
    """

    def __init__(self, rng: Rng, height: int, width: int) -> None:
        self.image = np.zeros((2 * height, 2 * width, 3), np.uint8)
        self.label = np.full((2 * height, 2 * width), SKY, np.uint8)
        # A scene is designed on 320 x 240 units, whatever the size in pixels.
        self.pixels_per_unit = np.array((2 * width / 320, 2 * height / 240))
        self.vanishing = np.array((rng.uniform(125, 195), rng.uniform(98, 122)))
        self.focal = rng.uniform(215, 250)
        self.camera_x, self.camera_height = rng.uniform(-0.8, 1.2), rng.uniform(1.7, 2.1)
        self.sun_side = rng.choice((-1, 1))
        self.haze, self.haze_depth = np.zeros(3), rng.uniform(110, 200)

    def project(self, points: np.ndarray) -> np.ndarray:
        """Metres (..., 3) -> units (..., 2)."""
        depth = points[..., 2:]
        offset = points[..., :2] * (1, -1) + (-self.camera_x, self.camera_height)
        return self.vanishing + offset * (self.focal / depth)

    def fill(self, points: np.ndarray, color: Color, class_id: int | None = None) -> None:
        """Paint a polygon (n, 3), or several (m, n, 3) in turn; None keeps the label.

        `color` is one for all, (3,), or one for each polygon, (m, 3).
        """
        air = 1 - np.exp(-np.min(points[..., 2]) / self.haze_depth)
        hazy = np.asarray(color) * (1 - air) + self.haze * air
        self.fill_units(self.project(points), hazy, class_id)

    def fill_units(self, units: np.ndarray, color: Color, class_id: int | None = None) -> None:
        """As `fill`, for points already projected: (n, 2) or (m, n, 2)."""
        polygons = self.to_fixed_point(units)
        colors = np.broadcast_to(np.clip(color, 0, 255), (len(polygons), 3)).tolist()
        for polygon, rgb in zip(polygons, colors, strict=True):
            cv2.fillPoly(self.image, [polygon], rgb, cv2.LINE_8, 4)
            if class_id is not None:
                cv2.fillPoly(self.label, [polygon], class_id, cv2.LINE_8, 4)

    def shade(self, polygons: list[np.ndarray], factor: float) -> None:
        """Darken the image inside the polygons, each (n, 3); the label stays."""
        mask = np.zeros(self.label.shape, np.uint8)
        for polygon in self.to_fixed_point(self.project(np.stack(polygons))):
            cv2.fillPoly(mask, [polygon], 1, cv2.LINE_8, 4)
        inside = mask.astype(bool)
        self.image[inside] = (self.image[inside] * factor).astype(np.uint8)

    def to_fixed_point(self, units: np.ndarray) -> list[np.ndarray]:
        """Units (n, 2) or (m, n, 2) -> a list of int32 (n, 2) in 1/16 pixel, as OpenCV wants."""
        fixed = np.round(units * self.pixels_per_unit * 16).astype(np.int32)
        return list(fixed.reshape(-1, *fixed.shape[-2:]))

    def nearest_depth(self, x: float, margin: float) -> float:
        """Depth in metres from which the position x is at least `margin` units inside the frame."""
        room = 320 - self.vanishing[0] if x > self.camera_x else self.vanishing[0]
        return self.focal * abs(x - self.camera_x) / (room - margin)

    def finish(self) -> tuple[np.ndarray, np.ndarray]:
        """Image uint8 (height, width, 3) and label uint8 (height, width)."""
        height, width = self.label.shape[0] // 2, self.label.shape[1] // 2
        image = cv2.resize(self.image, (width, height), interpolation=cv2.INTER_AREA)
        return image, self.label[1::2, 1::2].copy()


def disc(x: float, y: float, z: float, radius: float, *, stretch: float = 1.0) -> np.ndarray:
    """A disc that faces the camera: (16, 3)."""
    return CIRCLE * (radius, radius * stretch, 0) + (x, y, z)


def box(x0: float, x1: float, y0: float, y1: float, z: float) -> np.ndarray:
    """A rectangle that faces the camera: (4, 3)."""
    return np.array(((x0, y0, z), (x1, y0, z), (x1, y1, z), (x0, y1, z)))


def strip(x0: float, x1: float, z0: float, z1: float) -> np.ndarray:
    """A rectangle on the ground: (4, 3)."""
    return np.array(((x0, 0, z0), (x1, 0, z0), (x1, 0, z1), (x0, 0, z1)))


def wall(x: float, y0: float, y1: float, z0: float, z1: float) -> np.ndarray:
    """A rectangle along the street: (4, 3)."""
    return np.array(((x, y0, z0), (x, y1, z0), (x, y1, z1), (x, y0, z1)))


def pick(rng: Rng, palette: tuple[Color, ...], spread: float = 12.0) -> np.ndarray:
    """A colour of the palette, varied: (3,)."""
    return np.array(palette[rng.integers(len(palette))]) + rng.normal(0, spread, 3)


def smooth_noise(rng: Rng, shape: tuple[int, int], cells: int) -> np.ndarray:
    """Noise of unit variance with about `cells` bumps along the height: float32 `shape`."""
    coarse = rng.standard_normal((cells, cells * 4 // 3), np.float32)
    return cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_CUBIC)
