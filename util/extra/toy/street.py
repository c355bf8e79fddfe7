"""Paints what a street is made of: sky, skyline, road, roadsides and houses."""

import cv2
import numpy as np

from util.extra.toy.canvas import (
    BUILDING,
    GRASS,
    ROAD,
    SIDEWALK,
    Canvas,
    Rng,
    box,
    pick,
    smooth_noise,
    strip,
    wall,
)
from util.extra.toy.objects import draw_tree

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


def draw_sky(canvas: Canvas, rng: Rng) -> None:
    """Gradient and clouds over the whole image; its horizon is the colour of the haze."""
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
