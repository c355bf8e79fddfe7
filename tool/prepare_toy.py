"""Draws the toy dataset of the quick start: procedural street scenes with exact labels.

    python tool/prepare_toy.py --out dataset/toy

A scene is laid out in metres (x right, y up from the ground, z ahead), seen through a pinhole
camera and painted far to near, so that nearer objects occlude. It depends on nothing but
(seed, split, index). Class ids are the lines of dataset/toy_names.txt; 255 is unlabeled.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from util.error import UserError, run_cli

Rng = np.random.Generator
Color = tuple[float, float, float] | np.ndarray  # RGB, 0..255
Painter = Callable[["Canvas", Rng, float, float], None]  # called with x, z
Placed = tuple[float, float, Painter]  # z, x, painter

SKY, BUILDING, ROAD, SIDEWALK, TREE, CAR, PERSON, SIGN, LAMP, GRASS = range(10)
VOID = 255
SPLITS = ("train", "val")  # the position of a split is part of its random seed
VERSION = 1  # raise it when the drawing changes, so that older folders are not taken for new ones
MIN_SIZE = 64

SKIES = (  # zenith, horizon
    ((62, 120, 200), (186, 214, 238)),
    ((104, 156, 216), (222, 230, 236)),
    ((158, 168, 182), (212, 216, 220)),
    ((104, 124, 176), (246, 206, 164)),
)
FACADES = (
    (176, 108, 78), (190, 146, 96), (150, 126, 116), (206, 170, 118), (172, 92, 82),
    (158, 138, 160), (140, 118, 124), (208, 158, 132), (142, 148, 168),
)  # fmt: skip
ROOFS = ((122, 66, 54), (92, 78, 82), (142, 84, 60))
PAINTS = (
    (196, 32, 38), (28, 70, 176), (236, 186, 34), (238, 238, 242), (28, 130, 142),
    (24, 26, 34), (224, 106, 28), (108, 30, 96), (60, 150, 220),
)  # fmt: skip
CLOTHES = (
    (206, 48, 92), (46, 62, 120), (240, 224, 210), (92, 52, 130), (228, 132, 44), (38, 40, 48),
    (40, 140, 150), (186, 40, 40),
)  # fmt: skip
SKINS = ((236, 190, 160), (206, 152, 118), (142, 96, 70))
ANGLES = np.linspace(0, 2 * np.pi, 16, endpoint=False)
CIRCLE = np.stack((np.cos(ANGLES), np.sin(ANGLES), np.zeros(16)), -1)
# Strength of the surface noise by class id: grains of about 1, 3 and 20 px.
TEXTURE = np.zeros((256, 3), np.float32)
TEXTURE[:10] = (
    (0, 0, 0), (3, 4, 5), (6, 4, 5), (3, 5, 4), (10, 12, 4),
    (1, 1, 4), (3, 3, 2), (1, 1, 2), (1, 2, 2), (10, 6, 8),
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder to write, new or empty")
    parser.add_argument("--train", type=int, default=300, help="number of training pictures")
    parser.add_argument("--val", type=int, default=40, help="number of validation pictures")
    parser.add_argument("--height", type=int, default=240, help="height of a picture in pixels")
    parser.add_argument("--width", type=int, default=320, help="width of a picture in pixels")
    parser.add_argument("--seed", type=int, default=0, help="another seed draws another city")
    options = vars(parser.parse_args())
    print(draw_dataset(options.pop("out"), **options))


def draw_dataset(out: Path, *, train: int, val: int, height: int, width: int, seed: int) -> str:
    """Write images, labels, lists and toy.json under `out`; return a sentence on what was done."""
    options = {"train": train, "val": val, "height": height, "width": width, "seed": seed}
    limits = {"train": 1, "val": 1, "height": MIN_SIZE, "width": MIN_SIZE, "seed": 0}
    for name, least in limits.items():
        if options[name] < least:
            raise UserError(f"--{name} must be at least {least}, got {options[name]}")
    what = f"{train} train and {val} val pictures in {out}"
    if holds_same_set(out, options | {"version": VERSION}):
        return f"toy: {what} are there already; nothing to do"
    start = time.perf_counter()
    for number, split in enumerate(SPLITS):
        for folder in (f"images/{split}", f"labels/{split}", "list"):
            (out / folder).mkdir(parents=True, exist_ok=True)
        lines = []
        for index in range(options[split]):
            image, label = draw_scene(np.random.default_rng((seed, number, index)), height, width)
            image_name = f"images/{split}/{index:04d}.jpg"
            label_name = f"labels/{split}/{index:04d}.png"
            bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
            write_picture(out / image_name, bgr, (cv2.IMWRITE_JPEG_QUALITY, 95))
            write_picture(out / label_name, label, ())
            lines.append(f"{image_name} {label_name}\n")
        (out / "list" / f"{split}.txt").write_text("".join(lines))
    # Last, so that an interrupted run is not taken for a complete one.
    (out / "toy.json").write_text(json.dumps(options | {"version": VERSION}, indent=2) + "\n")
    return f"toy: {what} ({time.perf_counter() - start:.1f} s)"


def holds_same_set(out: Path, options: dict[str, int]) -> bool:
    """True: `out` is complete; False: free to write. Anything else there is a UserError."""
    cure = "remove the folder or choose another --out"
    if not out.exists():
        return False
    if not out.is_dir():
        raise UserError(f"{out} is a file, not a folder; choose another --out")
    if not (out / "toy.json").is_file():
        if any(out.iterdir()):
            what = "is not empty and has no toy.json (other data or an unfinished run)"
            raise UserError(f"{out} {what}; {cure}")
        return False
    try:
        found = dict(json.loads((out / "toy.json").read_text()))
    except (ValueError, TypeError) as error:
        raise UserError(f"{out}/toy.json is damaged ({error}); {cure}") from error
    changes = [f"{k} {found.get(k)} (asked: {v})" for k, v in options.items() if found.get(k) != v]
    if changes:
        raise UserError(f"{out} holds a toy set with {', '.join(changes)}; {cure}")
    return True


def write_picture(path: Path, picture: np.ndarray, flags: tuple[int, ...]) -> None:
    if not cv2.imwrite(str(path), picture, flags):
        raise UserError(f"cannot write {path}; check the free space and the rights of the folder")


def draw_scene(rng: Rng, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """One street scene: RGB image uint8 (height, width, 3), label uint8 (height, width)."""
    canvas = Canvas(rng, height, width)
    draw_sky(canvas, rng)
    draw_skyline(canvas, rng)
    placed: list[Placed] = []
    kerb = rng.uniform(2.6, 3.3)
    draw_road(canvas, rng, kerb)
    for side in (-1, 1):
        verge = kerb + (rng.uniform(1.6, 2.6) if rng.random() < 0.5 else 0.0)
        walk = verge + rng.uniform(2.6, 4.0)
        front = walk + (rng.uniform(2.5, 5.0) if rng.random() < 0.75 else 0.0)
        draw_roadside(canvas, rng, side, (kerb, verge, walk, front))
        draw_buildings(canvas, rng, side, front)
        placed += place_objects(canvas, rng, side, (kerb, verge, walk, front))
    placed.sort(key=lambda item: -item[0])
    canvas.shade([shadow(*item) for item in placed], 0.55)
    for z, x, painter in placed:
        painter(canvas, rng, x, z)
    if rng.random() < 0.3:
        draw_bonnet(canvas, rng)
    image, label = canvas.finish()
    return photograph(rng, image, label), mark_outlines(rng, label)


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


def shadow(z: float, x: float, painter: Painter) -> np.ndarray:
    """The ellipse under an object, on the ground: (16, 3)."""
    shapes = {draw_car: (1.1, 2.4, 2.1), draw_tree: (1.6, 0.9, 0)}
    half_x, half_z, middle = shapes.get(painter, (0.4, 0.3, 0))
    return CIRCLE[:, [0, 2, 1]] * (half_x, 0, half_z) + (x + 0.2, 0, z + middle)


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


def draw_sky(canvas: Canvas, rng: Rng) -> None:
    """Gradient and clouds over the whole picture; its horizon is the colour of the haze."""
    zenith, horizon = np.array(SKIES[rng.integers(len(SKIES))], np.float32)
    height, width = canvas.label.shape
    shape = (height // 2, width // 2)
    ramp = np.clip(np.linspace(0, 2.1, shape[0], dtype=np.float32), 0, 1)[:, None, None]
    sky = zenith * (1 - ramp) + horizon * ramp
    noise = sum(smooth_noise(rng, shape, n) / n**0.6 for n in (5, 11, 23))
    cover = np.clip(noise * 1.3 - rng.uniform(-0.2, 0.6), 0, 0.85)[..., None]
    sky = np.clip(sky * (1 - cover) + (horizon * 0.3 + 176) * cover, 0, 255).astype(np.uint8)
    canvas.image[:] = cv2.resize(sky, (width, height))
    canvas.haze = horizon.astype(float)


def draw_skyline(canvas: Canvas, rng: Rng) -> None:
    """Towers and trees far away, which close the street."""
    for x in rng.uniform(-75, 75, 16):
        half, top = rng.uniform(4, 9), rng.uniform(5, 20)
        canvas.fill(box(x - half, x + half, 0, top, 95), pick(rng, FACADES), BUILDING)
    for x in rng.uniform(-60, 60, 8):
        draw_tree(canvas, rng, x, 80)


def draw_road(canvas: Canvas, rng: Rng, kerb: float) -> None:
    """Asphalt from kerb to kerb with lane marks, now and then a zebra crossing."""
    asphalt = rng.uniform(74, 100) + np.array((0, 1, 4)) + rng.normal(0, 2, 3)
    canvas.fill(strip(-kerb, kerb, 0.8, 95), asphalt, ROAD)
    paint = np.full(3, rng.uniform(190, 230))
    for z in np.arange(rng.uniform(1.5, 4.5), 60, 5):
        canvas.fill(strip(-0.08, 0.08, z, z + 2.4), paint)
    if rng.random() < 0.5:
        for x in (0.35 - kerb, kerb - 0.35):
            canvas.fill(strip(x - 0.06, x + 0.06, 0.8, 60), paint)
    if rng.random() < 0.3:
        z = rng.uniform(7, 14)
        bars = [strip(x, x + 0.5, z, z + 2.5) for x in np.arange(0.3 - kerb, kerb - 0.5, 1.0)]
        canvas.fill(np.stack(bars), paint)


def draw_roadside(canvas: Canvas, rng: Rng, side: int, edges: tuple[float, ...]) -> None:
    """Ground beyond the kerb: grass verge, paved walk, front gardens. Edges in metres."""
    kerb, verge, walk, front = edges
    green, stone = pick(rng, ((108, 168, 62), (126, 176, 70))), pick(rng, ((206, 200, 188),), 5)
    gardens = (green, GRASS) if front > walk else (stone, SIDEWALK)
    canvas.fill(strip(side * walk, side * 90, 0.8, 95), *gardens)
    if verge > kerb:
        canvas.fill(strip(side * kerb, side * verge, 0.8, 95), green * 0.96, GRASS)
    canvas.fill(strip(side * verge, side * walk, 0.8, 95), stone, SIDEWALK)
    for z in np.arange(1, 26, 0.9):
        canvas.fill(strip(side * verge, side * walk, z, z + 0.035 + 0.002 * z), stone * 0.8)
    middle = side * (verge + walk) / 2
    canvas.fill(strip(middle - 0.02, middle + 0.02, 0.8, 30), stone * 0.82)
    canvas.fill(strip(side * kerb, side * (kerb + 0.22), 0.8, 95), stone * 1.14)


def draw_buildings(canvas: Canvas, rng: Rng, side: int, front: float) -> None:
    """A row of houses along one side, from the far end to the camera."""
    z_far = 88.0
    while z_far > 6:
        z_near = max(z_far - rng.uniform(7, 15), 1.0)
        draw_house(canvas, rng, side, side * (front + rng.uniform(0, 1.2)), z_near, z_far)
        z_far = z_near - (rng.uniform(2, 7) if rng.random() < 0.5 else 0)


def draw_house(canvas: Canvas, rng: Rng, side: int, x: float, z0: float, z1: float) -> None:
    """Facade at x from z0 to z1, the end wall that faces the camera, windows, roof."""
    floors = int(rng.integers(2, 5))
    storey, color = rng.uniform(2.7, 3.2), pick(rng, FACADES, 7)
    top = floors * storey + 0.4
    lit = color * (1.06 if side == canvas.sun_side else 0.84)
    ridge_x, back = x + side * 3.5, x + side * 7
    gable = np.array(((x, 0, z0), (x, top, z0), (back, top, z0), (back, 0, z0)))
    if rng.random() < 0.6:
        gable = np.insert(gable, 2, (ridge_x, top + 2.6, z0), axis=0)
        slope = ((x, top, z0), (ridge_x, top + 2.6, z0), (ridge_x, top + 2.6, z1), (x, top, z1))
        canvas.fill(np.array(slope), pick(rng, ROOFS), BUILDING)
    canvas.fill(gable, color * 0.92, BUILDING)
    canvas.fill(wall(x, 0, top, z0, z1), lit, BUILDING)
    canvas.fill(wall(x, top - 0.35, top, z0, z1), lit * 1.14)
    canvas.fill(wall(x, 0, 0.5, z0, z1), lit * 0.72)
    spacing, wide, tall = rng.uniform(2.0, 3.0), rng.uniform(0.9, 1.4), rng.uniform(1.2, 1.7)
    frame, glass = np.clip(lit * 1.3, 0, 236), np.array((66, 78, 96)) * rng.uniform(0.7, 1.2)
    panes = []
    for y in np.arange(floors) * storey + 1.0:
        for z in np.arange(z0 + 0.7, z1 - wide - 0.4, spacing):
            panes.append(wall(x, y, y + tall, z, z + wide))
        for step in (1.2, 4.4):
            panes.append(box(x + side * step, x + side * (step + wide), y, y + tall, z0))
    glass_area = np.stack(panes)
    middle = glass_area.mean(1, keepdims=True)
    canvas.fill(middle + (glass_area - middle) * 1.2, frame)
    canvas.fill(glass_area, glass * rng.uniform(0.75, 1.45, (len(panes), 1)))
    if rng.random() < 0.5 and z1 - z0 > 5:  # a shop
        awning = wall(x, 2.5, 3.1, z0 + 0.5, z1 - 0.5)
        canvas.fill(awning, pick(rng, ((150, 60, 60), (70, 104, 92), (78, 84, 120)), 14))


def place_objects(canvas: Canvas, rng: Rng, side: int, edges: tuple[float, ...]) -> list[Placed]:
    """What stands or drives on one side of the street, in any order."""
    kerb, verge, walk, front = edges
    placed: list[Placed] = []

    def place(painter: Painter, x: float, z: float, margin: float) -> None:
        depth = max(z, canvas.nearest_depth(side * x, margin) * rng.uniform(1.0, 1.25))
        placed.append((depth, side * x, painter))

    # A row of poles and trees along the kerb, one per slot, so that they do not collide.
    row = (draw_lamp, draw_sign, draw_tree)
    for z, which in zip((6.0, 8.5, 12.0), rng.permutation(3), strict=True):
        if rng.random() < 0.8:
            offset = 1.0 if row[which] is draw_tree and verge == kerb else 0.5
            place(row[which], kerb + offset, z + rng.uniform(0, 1.5), 26)
    for z in rng.uniform(8, 30, rng.integers(1, 3)):
        if front > walk:
            place(draw_tree, (walk + front) / 2, z, 0)
    for z in rng.choice(np.arange(4.5, 10, 1.8), rng.integers(1, 3), replace=False):
        place(draw_person, rng.uniform(verge + 0.5, walk - 0.3), z, 10)
    z = rng.uniform(4, 9)
    while z < 26:
        if rng.random() < 0.55:
            place(draw_car, rng.uniform(1.2, kerb - 0.95), z, 4)
        z += rng.uniform(5.5, 12)
    return placed


def draw_tree(canvas: Canvas, rng: Rng, x: float, z: float) -> None:
    """Trunk and a crown of leaves, lighter towards the top."""
    radius, trunk = rng.uniform(1.3, 2.0), rng.uniform(1.7, 2.5)
    bark, leaf = pick(rng, ((92, 70, 52),), 8), pick(rng, ((46, 92, 44), (66, 98, 40)), 9)
    canvas.fill(box(x - 0.17, x + 0.17, 0, trunk + radius, z), bark, TREE)
    canvas.fill(box(x + 0.05, x + 0.17, 0, trunk + radius, z), bark * 0.7)
    count = 44 if z < 40 else 14
    angle, reach = rng.uniform(0, 2 * np.pi, count), np.sqrt(rng.uniform(0, 1, count))
    size, tone = rng.uniform(0.14, 0.34, count), rng.uniform(0.82, 1.2, count)
    reach[:6], size[:6] = reach[:6] * 0.4, 0.62  # big discs in the middle, so that no hole is left
    dx, dy = reach * np.cos(angle), reach * np.sin(angle)
    tone *= np.where(size > 0.5, 0.72, 0.95 + 0.3 * dy)
    centre = np.stack((x + radius * dx, trunk + radius * (1 + 1.1 * dy), np.full(count, z)), -1)
    leaves = centre[:, None] + CIRCLE * (radius * size)[:, None, None]
    canvas.fill(leaves, leaf * tone[:, None], TREE)


def draw_car(canvas: Canvas, rng: Rng, x: float, z: float) -> None:
    """A car along the street seen from one end: near faces, one side, wheels."""
    paint, glass = pick(rng, PAINTS, 8), np.array((44, 54, 68)) + rng.uniform(-8, 24)
    tall, half, length = rng.uniform(1.4, 1.62), rng.uniform(0.84, 0.94), rng.uniform(3.9, 4.5)
    # Outline of the side in (z, y): bumper, boot lid, window, roof, windscreen, bonnet, bumper.
    back = np.array(((0, 0.28), (0.02, 0.88), (0.4, 0.95), (0.85, tall)))
    front = np.array(((2.4, tall), (3.1, 0.95), (4, 0.8), (4.1, 0.28)))
    outline = np.concatenate((back, front)) * (length / 4.1, 1)
    width = half - 0.45 * np.maximum(outline[:, 1] - 0.95, 0)  # the cabin narrows upwards

    def edge(side: int) -> np.ndarray:
        return np.stack((x + side * width, outline[:, 1], z + outline[:, 0]), -1)

    near = -1 if x > canvas.camera_x else 1  # the side the camera sees
    canvas.fill(box(x - half + 0.05, x + half - 0.05, 0.12, 0.5, z + 0.1), (22, 22, 24), CAR)
    side = edge(near)
    canvas.fill(side, paint * 0.78, CAR)
    canvas.fill(side[2:6] * 0.93 + side[2:6].mean(0) * 0.07, glass)
    for middle in (0.19 * length, 0.8 * length):
        for radius, tone in ((0.34, 24), (0.19, 150)):
            wheel = CIRCLE[:, [2, 1, 0]] * radius + (x + near * half, 0.34, z + middle)
            canvas.fill(wheel, (tone, tone, tone + 4), CAR)
    left, right = edge(-1), edge(1)
    faces = np.stack((left[:-1], left[1:], right[1:], right[:-1]), 1)
    for number, tone in ((3, 1.1), (2, 1.0), (1, 1.12), (0, 0.95)):
        canvas.fill(faces[number], paint * tone, CAR)
    window = faces[2]
    canvas.fill(window * 0.84 + window.mean(0) * 0.16, glass * 1.15)
    light = (206, 36, 30) if x > 0 else (250, 244, 214)  # tail or head lights
    for lamp_x in (x - half + 0.22, x + half - 0.22):
        canvas.fill(box(lamp_x - 0.16, lamp_x + 0.16, 0.64, 0.82, z), light)
    canvas.fill(box(x - 0.26, x + 0.26, 0.52, 0.66, z), (226, 226, 214))
    canvas.fill(box(x - half, x + half, 0.28, 0.42, z), paint * 0.55)
    for wheel_x in (x - half + 0.16, x + half - 0.16):
        canvas.fill(box(wheel_x - 0.13, wheel_x + 0.13, 0, 0.3, z + 0.05), (20, 20, 22), CAR)


def draw_person(canvas: Canvas, rng: Rng, x: float, z: float) -> None:
    """Legs in mid-step, coat, arms, head and hair."""
    tall, stride = rng.uniform(0.95, 1.12), rng.uniform(0.04, 0.22)
    skin, hair = pick(rng, SKINS, 6), pick(rng, ((52, 38, 30), (150, 112, 66), (90, 86, 84)), 6)
    coat, trousers = pick(rng, CLOTHES), pick(rng, ((44, 50, 74), (58, 52, 48), (96, 86, 74)))

    def part(points: tuple[tuple[float, float], ...], color: Color) -> None:
        outline = np.array([(x + 1.25 * dx, y * tall, z) for dx, y in points])
        canvas.fill(outline, color, PERSON)

    for sign, tone in ((-1, 0.8), (1, 1.0)):
        hip, foot = sign * 0.1, sign * stride
        leg = ((foot - 0.11, 0), (foot + 0.13, 0), (hip + 0.13, 0.9), (hip - 0.13, 0.9))
        part(leg, trousers * tone)
        arm, hand = sign * 0.2, sign * (0.31 + stride * 0.4)
        sleeve = ((hand - 0.07, 0.75), (hand + 0.07, 0.75), (arm + 0.1, 1.45), (arm - 0.1, 1.45))
        part(sleeve, coat * (0.8 * tone))
    part(((-0.27, 0.72), (0.27, 0.72), (0.25, 1.42), (0, 1.52), (-0.25, 1.42)), coat)
    canvas.fill(disc(x, 1.64 * tall, z, 0.19, stretch=1.1), hair, PERSON)
    canvas.fill(disc(x, 1.6 * tall, z, 0.16, stretch=1.1), skin, PERSON)


def draw_sign(canvas: Canvas, rng: Rng, x: float, z: float) -> None:
    """A traffic sign on a pole: ban (disc), warning (triangle) or blue square."""
    y, size, kind = rng.uniform(2.2, 2.7), rng.uniform(0.62, 0.8), rng.integers(3)
    canvas.fill(box(x - 0.15, x + 0.15, 0, y, z), (150, 156, 162), SIGN)
    red, white, blue = pick(rng, ((204, 30, 36),), 8), (240, 240, 236), (24, 84, 190)
    if kind == 0:
        shape, rim, inner = disc(x, y, z, size), red, white
    elif kind == 1:
        corners = ((-1.15, -0.8, 0), (1.15, -0.8, 0), (0, 1.15, 0))
        shape, rim, inner = np.array((x, y, z)) + size * np.array(corners), red, (250, 214, 60)
    else:
        shape, rim, inner = box(x - size, x + size, y - size, y + size, z), white, blue
    canvas.fill(shape, rim, SIGN)
    middle = np.array((x, y, z))
    canvas.fill(middle + 0.74 * (shape - middle), inner)
    bar_color = (30, 30, 34) if kind < 2 else white
    canvas.fill(box(x - 0.1, x + 0.1, y - 0.4 * size, y + 0.4 * size, z), bar_color)


def draw_lamp(canvas: Canvas, rng: Rng, x: float, z: float) -> None:
    """A street lamp: base, dark pole, and either an arm over the road or a lantern on top."""
    tall, iron = rng.uniform(4.0, 5.0), pick(rng, ((20, 84, 96), (28, 72, 104)), 6)
    glow = pick(rng, ((255, 236, 170),), 6)
    canvas.fill(box(x - 0.22, x + 0.22, 0, tall, z), iron, LAMP)
    canvas.fill(box(x - 0.34, x + 0.34, 0, 0.7, z), iron * 0.85, LAMP)
    canvas.fill(box(x - 0.22, x - 0.1, 0.7, tall, z), iron * 1.5)
    if rng.random() < 0.5:
        end = x - np.sign(x) * 1.4
        canvas.fill(box(x, end, tall - 0.4, tall, z), iron, LAMP)
        canvas.fill(box(end - 0.6, end + 0.6, tall - 0.65, tall + 0.1, z), iron * 1.2, LAMP)
        canvas.fill(box(end - 0.5, end + 0.5, tall - 0.65, tall - 0.3, z), glow)
    else:
        canvas.fill(disc(x, tall, z, 0.64, stretch=1.1), iron, LAMP)
        canvas.fill(disc(x, tall, z, 0.5, stretch=1.1), glow)


def draw_bonnet(canvas: Canvas, rng: Rng) -> None:
    """The bonnet of the car that carries the camera; unlabeled."""
    angle = np.linspace(np.pi, 2 * np.pi, 24)
    wide, rise = rng.uniform(150, 200), rng.uniform(12, 24)
    paint = pick(rng, PAINTS) * 0.5
    for scale, tone in ((1.0, 0.7), (0.93, 1.0), (0.7, 1.15)):
        arc = np.stack((160 + wide * np.cos(angle), 241 + scale * rise * np.sin(angle)), -1)
        canvas.fill_units(arc, paint * tone, VOID)


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


if __name__ == "__main__":
    run_cli(main)
