"""Procedural street scenes with exact labels: the images of the toy dataset.

A scene depends only on the random generator and the size. It is laid out in metres and painted from
far to near. Class ids are line numbers, from 0, in dataset/toy_names.txt; 255 is unlabelled.
"""

from typing import Any

import cv2
import numpy as np

from util.extra.toy.canvas import CIRCLE, Canvas, Rng, X, Y, Z, noise, pick, plane, rect

VERSION = 2  # increase it if the drawing changes, so that older folders are told apart
MIN_SIZE = 64
SKY, BUILDING, ROAD, SIDEWALK, TREE, CAR, PERSON, SIGN, LAMP, GRASS = range(10)
VOID = 255
TEXTURE = np.zeros((256, 3), np.float32)  # strength of 1, 3 and 20 pixel grain by class
TEXTURE[BUILDING:TREE], TEXTURE[TREE], TEXTURE[GRASS] = (4, 4.5, 5), (10, 12, 4), (10, 6, 8)
TEXTURE[CAR:GRASS] = (1.5, 2, 2.5)


def hexes(text: str) -> np.ndarray:
    """Parse `rrggbb rrggbb ...` to colours (n, 3)."""
    return np.array([tuple(bytes.fromhex(word)) for word in text.split()], float)


SKIES = hexes("3e78c8 bad6ee 689cd8 dee6ec 9ea8b6 d4d8dc 687cb0 f6cea4").reshape(4, 2, 3)
FACADES = hexes("b06c4e be9260 967e74 ceaa76 ac5c52 9e8aa0 8c767c d09e84 8e94a8")
PAINTS = hexes("c42026 1c46b0 ecba22 eeeef2 1c828e 181a22 e06a1c 6c1e60 3c96dc")
COATS, SKINS = hexes("ce305c 2e3e78 f0e0d2 5c3482 e4842c 262830"), hexes("ecbea0 ce9876 8e6046")
TROUSERS, LEAVES, LAWNS = hexes("2c324a 60564a"), hexes("2e5c2c 426228"), hexes("6ca83e 7eb046")
BARK, BLACK, STEEL, GLASS, STONE, WHITE = hexes("5c4634 18181a 969ca2 363f4c cec8bc f0f0ec")
RED, BLUE, YELLOW, GLOW, IRON, SHADE = hexes("cc1e24 1854be fad63c ffecaa 185068 2a2c30")


def draw_scene(rng: Rng, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw a street scene: RGB image (height, width, 3) and label (height, width), both uint8."""
    canvas, kerb = Canvas(rng, height, width), rng.uniform(2.6, 3.3)
    draw_background(canvas, rng)
    canvas.fill(plane(rect(-kerb, kerb, 0.8, 95), Y), STEEL * rng.uniform(0.48, 0.66), ROAD)
    marks = [rect(-0.08, 0.08, z, z + 2.4) for z in np.arange(rng.uniform(1.5, 4.5), 60, 5)]
    if rng.random() < 0.4:  # a zebra crossing
        z = rng.uniform(7, 14)
        marks += [rect(x, x + 0.5, z, z + 2.5) for x in np.arange(0.3 - kerb, kerb - 0.5)]
    canvas.fill(plane(np.stack(marks), Y), WHITE * rng.uniform(0.8, 0.95))
    placed = [thing for side in (-1, 1) for thing in draw_side(canvas, rng, side, kerb)]
    placed.sort(key=lambda thing: -thing[0])
    for z, x, class_id in placed:
        half, length = {CAR: (1.1, 4.4), TREE: (1.6, 1.8)}.get(class_id, (0.4, 0.6))
        shadow = CIRCLE * (half, length / 2) + (x + 0.2, z + length / 2 - 0.2)
        canvas.fill(plane(shadow, Y), SHADE)
    models = {TREE: tree, PERSON: person, SIGN: sign, LAMP: lamp}
    for z, x, class_id in placed:
        if class_id == CAR:
            draw_car(canvas, rng, x, z)
            continue
        for points, color in models[class_id](rng, -np.sign(x)):
            canvas.fill(plane(points, Z, z) + np.array((x, 0, 0)), color, class_id)
    return photograph(rng, canvas)


def photograph(rng: Rng, canvas: Canvas) -> tuple[np.ndarray, np.ndarray]:
    """Return the image (H, W, 3) as a camera sees it and the label (H, W) as people draw it."""
    label = np.ascontiguousarray(canvas.label[1::2, 1::2])
    shape = label.shape
    photo = cv2.resize(canvas.image, shape[::-1], interpolation=cv2.INTER_AREA)
    fine, coarse, sensor = rng.standard_normal((3, *shape), np.float32)
    grain = (fine, 3 * cv2.GaussianBlur(coarse, (0, 0), 1.2), noise(rng, shape, 12))
    texture = (np.stack(grain, -1) * TEXTURE[label]).sum(-1)[..., None]
    light = rng.uniform(0.82, 1.1) * (1 + 0.06 * noise(rng, shape, 3))[..., None]
    photo = (photo + texture) * (light * rng.normal(1, 0.03, 3))
    photo = cv2.GaussianBlur(photo, (0, 0), rng.uniform(0.35, 0.65))
    photo += sensor[..., None] * rng.uniform(1, 4)
    # Annotators leave a thin unlabelled band around objects on the ground.
    objects = ((label >= TREE) & (label <= LAMP)).astype(np.uint8)
    width = 2 * int(rng.integers(0, 3)) + 1
    label[cv2.dilate(objects, np.ones((width, width), np.uint8)) > objects] = VOID
    return np.clip(photo, 0, 255).astype(np.uint8), label


def draw_background(canvas: Canvas, rng: Rng) -> None:
    """Draw a cloudy sky that fades into haze at the horizon, and distant towers."""
    zenith, canvas.haze = SKIES[rng.integers(len(SKIES))]
    shape = canvas.label.shape[0] // 4, canvas.label.shape[1] // 4
    ramp = np.linspace(0, 2.1, shape[0]).clip(0, 1)[:, None, None]
    layers: list = [noise(rng, shape, n) / n**0.6 for n in (5, 11, 23)]
    clouds = sum(layers) * 1.3
    cover = np.clip(clouds - rng.uniform(-0.2, 0.6), 0, 0.85)[..., None]
    sky = (zenith * (1 - ramp) + canvas.haze * ramp) * (1 - cover)
    sky = np.clip(sky + (canvas.haze * 0.3 + 176) * cover, 0, 255).astype(np.uint8)
    canvas.image[:] = cv2.resize(sky, canvas.label.shape[::-1])
    for x in rng.uniform(-75, 75, 16):
        half, top = rng.uniform(4, 9), rng.uniform(5, 20)
        canvas.fill(plane(rect(x - half, x + half, 0, top), Z, 95), pick(rng, FACADES), BUILDING)


def draw_side(canvas: Canvas, rng: Rng, side: int, kerb: float) -> list[tuple[float, float, int]]:
    """Draw ground and houses on one side; return the objects to place there: (z, x, class)."""
    verge = kerb + (rng.uniform(1.6, 2.6) if rng.random() < 0.5 else 0.0)
    walk = verge + rng.uniform(2.6, 4.0)
    front = walk + (rng.uniform(2.5, 5.0) if rng.random() < 0.75 else 0.0)
    green, stone = pick(rng, LAWNS), STONE + rng.normal(0, 5, 3)
    garden = (green, GRASS) if front > walk else (stone, SIDEWALK)
    for x0, x1, color, class_id in (
        (walk, 90, *garden),
        (kerb, verge, green * 0.96, GRASS),
        (verge, walk, stone, SIDEWALK),
    ):
        canvas.fill(plane(rect(side * x0, side * x1, 0.8, 95), Y), color, class_id)
    seams = [rect(side * verge, side * walk, z, z * 1.002 + 0.035) for z in np.arange(1, 26, 0.9)]
    canvas.fill(plane(np.stack(seams), Y), stone * 0.8)
    z = 88.0
    while z > 6:
        near = max(z - rng.uniform(7, 15), 1.0)
        draw_house(canvas, rng, side, side * (front + rng.uniform(0, 1.2)), near, z)
        z = near - (rng.uniform(2, 7) if rng.random() < 0.5 else 0)
    placed = []

    def place(class_id: int, x: float, z: float, margin: float) -> None:
        depth = canvas.depth_in_frame(side * x, margin) * rng.uniform(1, 1.25)
        placed.append((max(z, depth), side * x, class_id))

    for z, class_id in zip((6, 8.5, 12), rng.permutation((LAMP, SIGN, TREE)).tolist(), strict=True):
        if rng.random() < 0.8:  # one slot each, so that they do not collide
            place(class_id, kerb + (1.0 if class_id == TREE else 0.5), z + rng.uniform(0, 1.5), 26)
    for z in rng.uniform(8, 30, 2 * (front > walk)):
        place(TREE, (walk + front) / 2, z, 0)
    for z in rng.choice(np.arange(4.5, 10, 1.8), rng.integers(1, 3), replace=False):
        place(PERSON, rng.uniform(verge + 0.5, walk - 0.3), z, 10)
    for z in np.arange(rng.uniform(4, 9), 26, 8.5):
        if rng.random() < 0.55:
            place(CAR, rng.uniform(1.2, kerb - 0.95), z + rng.uniform(0, 3), 4)
    return placed


def draw_house(canvas: Canvas, rng: Rng, side: int, x: float, z0: float, z1: float) -> None:
    """Draw a facade along the street, the gable facing the camera, and windows."""
    floors, storey, color = int(rng.integers(2, 5)), rng.uniform(2.7, 3.2), pick(rng, FACADES, 7)
    top, middle, back = floors * storey + 0.4, x + side * 3.5, x + side * 7
    peak, lit = top + 2.6 * (rng.random() < 0.6), color * rng.uniform(0.84, 1.06)
    gable = np.array(((x, 0), (x, top), (middle, peak), (back, top), (back, 0)))
    canvas.fill(plane(gable, Z, z0), color * 0.92, BUILDING)
    for low, high, tone in ((0, top, 1.0), (top - 0.35, top, 1.14), (0, 0.5, 0.72)):
        canvas.fill(plane(rect(low, high, z0, z1), X, x), lit * tone, BUILDING)
    wide, tall = rng.uniform(0.9, 1.4), rng.uniform(1.2, 1.7)
    columns, panes = np.arange(z0 + 0.7, z1 - wide - 0.4, rng.uniform(2, 3)), []
    for y in np.arange(floors) * storey + 1:
        panes += [plane(rect(y, y + tall, z, z + wide), X, x) for z in columns]
        ends = (x + side * step for step in (1.2, 4.4))
        panes += [plane(rect(end, end + side * wide, y, y + tall), Z, z0) for end in ends]
    glass = np.stack(panes)
    centre = glass.mean(1, keepdims=True)
    canvas.fill(centre + (glass - centre) * 1.2, np.minimum(lit * 1.3, 236))
    canvas.fill(glass, GLASS * rng.uniform(0.8, 1.8, (len(panes), 1)))


def draw_car(canvas: Canvas, rng: Rng, x: float, z: float) -> None:
    """Draw a car along the street: the side and end facing the camera, windows, wheels."""
    paint, glass, half = (
        pick(rng, PAINTS, 8),
        GLASS * rng.uniform(0.9, 1.4),
        rng.uniform(0.84, 0.94),
    )
    # The side's outline (z, y): bumper, boot, window, roof, windscreen, bonnet, bumper.
    back = ((0, 0.28), (0.02, 0.88), (0.4, 0.95), (0.85, rng.uniform(1.4, 1.62)))
    outline = np.array((*back, (2.4, back[3][1]), (3.1, 0.95), (4, 0.8), (4.1, 0.28)))
    width = half - 0.45 * np.maximum(outline[:, 1] - 0.95, 0)  # the cabin narrows upwards
    sides = [np.stack((x + s * width, outline[:, 1], z + outline[:, 0]), -1) for s in (-1, 1)]
    sees_right = int(x < canvas.camera[0])
    side, flank = sides[sees_right], x + half * (2 * sees_right - 1)

    def pair(x0: float, x1: float, y0: float, y1: float, color: np.ndarray) -> None:
        for sign in (-1, 1):
            canvas.fill(plane(rect(x + sign * x0, x + sign * x1, y0, y1), Z, z), color, CAR)

    pair(0, half - 0.05, 0.12, 0.5, BLACK)
    canvas.fill(side, paint * 0.78, CAR)
    canvas.fill(side[2:6] * 0.93 + side[2:6].mean(0) * 0.07, glass)
    for middle in (0.8, 3.3):
        for radius, color in ((0.34, BLACK), (0.19, STEEL)):
            canvas.fill(plane(CIRCLE * radius + (0.34, z + middle), X, flank), color, CAR)
    for i, tone in ((3, 1.1), (2, 1.0), (1, 1.12), (0, 0.95)):
        face = np.concatenate((sides[0][i : i + 2], sides[1][i : i + 2][::-1]))
        canvas.fill(face, paint * tone, CAR)
        if i == 2:
            canvas.fill(face * 0.84 + face.mean(0) * 0.16, glass * 1.15)
    pair(half - 0.38, half - 0.06, 0.64, 0.82, RED if x > 0 else GLOW)
    pair(0, 0.26, 0.52, 0.66, WHITE)
    pair(0, half, 0.28, 0.42, paint * 0.55)
    pair(half - 0.29, half - 0.03, 0, 0.3, BLACK)


# Models: polygons (x, y) around x = 0 with their colours; `road` is the direction to the road.
Model = list[tuple[np.ndarray, np.ndarray]]


def tree(rng: Rng, road: float) -> Model:
    """Model a trunk and a crown of leaves, lighter towards the top."""
    radius, trunk, leaf = rng.uniform(1.3, 2.0), rng.uniform(1.7, 2.5), pick(rng, LEAVES, 9)
    angle, reach = rng.uniform(0, 2 * np.pi, 44), np.sqrt(rng.uniform(0, 1, 44))
    size = rng.uniform(0.14, 0.34, 44)
    reach[:6], size[:6] = reach[:6] * 0.4, 0.62  # large ones in the middle leave no holes
    x, y = reach * np.cos(angle), reach * np.sin(angle)
    tone = rng.uniform(0.82, 1.2, 44) * np.where(size > 0.5, 0.72, 0.95 + 0.3 * y)
    crown = np.stack((x, 1 + y), -1)[:, None] + CIRCLE * size[:, None, None]
    stem = rect(-0.17, 0.17, 0, trunk + radius)
    return [(stem, BARK), (crown * radius + (0, trunk), leaf * tone[:, None])]


def person(rng: Rng, road: float) -> Model:
    """Model a pedestrian: legs in mid-step, arms, coat, hair and face."""
    tall, stride, coat = rng.uniform(0.95, 1.12), rng.uniform(0.04, 0.22), pick(rng, COATS)
    trousers, hair = pick(rng, TROUSERS), pick(rng, SKINS) * 0.4
    parts: list[tuple[Any, np.ndarray]] = []
    for s, tone in ((-1, 0.8), (1, 1.0)):
        foot, hand = s * stride, s * (0.31 + stride * 0.4)
        leg = ((foot - 0.11, 0), (foot + 0.13, 0), (s * 0.1 + 0.13, 0.9), (s * 0.1 - 0.13, 0.9))
        sleeve = ((hand - 0.07, 0.75), (hand + 0.07, 0.75), (s * 0.3, 1.45), (s * 0.1, 1.45))
        parts += [(leg, trousers * tone), (sleeve, coat * 0.8 * tone)]
    parts.append((((-0.27, 0.72), (0.27, 0.72), (0.25, 1.42), (0, 1.52), (-0.25, 1.42)), coat))
    parts.append((CIRCLE * (0.16, 0.2) + np.array((0, 1.65)), hair))
    parts.append((CIRCLE * (0.13, 0.17) + np.array((0, 1.61)), pick(rng, SKINS, 6)))
    return [(np.array(points) * (1.25, tall), color) for points, color in parts]


def sign(rng: Rng, road: float) -> Model:
    """Model a traffic sign on a pole: prohibition (disc), warning (triangle) or blue square."""
    y, size, kind = rng.uniform(2.2, 2.7), rng.uniform(0.62, 0.8), rng.integers(3)
    triangle = np.array(((-1.15, -0.8), (1.15, -0.8), (0, 1.15)))
    shape = (CIRCLE, triangle, rect(-1, 1, -1, 1))[kind] * size
    rim, inner, bar = ((RED, WHITE, BLACK), (RED, YELLOW, BLACK), (WHITE, BLUE, WHITE))[kind]
    plates = ((shape, rim), (shape * 0.74, inner), (rect(-0.1, 0.1, -0.28, 0.28), bar))
    pole = (rect(-0.15, 0.15, 0, y), STEEL)
    return [pole, *((points + np.array((0, y)), color) for points, color in plates)]


def lamp(rng: Rng, road: float) -> Model:
    """Model a street lamp with an arm over the road, or with a lantern on top."""
    top, iron, end = rng.uniform(4.0, 5.0), IRON * rng.uniform(0.8, 1.2), 1.4 * road
    pole = [(rect(-0.22, 0.22, 0, top), iron), (rect(-0.22, -0.1, 0, top), iron * 1.5)]
    foot = (rect(-0.34, 0.34, 0, 0.7), iron * 0.85)
    if rng.random() < 0.5:
        lantern = CIRCLE * 0.64 + np.array((0, top))
        return [*pole, foot, (lantern, iron), (CIRCLE * 0.5 + np.array((0, top)), GLOW)]
    arm = (rect(0, end, top - 0.4, top), iron)
    head = (rect(end - 0.6, end + 0.6, top - 0.65, top + 0.1), iron * 1.2)
    return [*pole, foot, arm, head, (rect(end - 0.5, end + 0.5, top - 0.65, top - 0.3), GLOW)]
