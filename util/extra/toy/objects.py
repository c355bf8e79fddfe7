"""Places and paints what stands or drives in a street: trees, cars, people, signs, lamps."""

from collections.abc import Callable

import numpy as np

from util.extra.toy.canvas import (
    CAR,
    CIRCLE,
    LAMP,
    PERSON,
    SIGN,
    TREE,
    VOID,
    Canvas,
    Color,
    Rng,
    box,
    disc,
    pick,
)

Painter = Callable[[Canvas, Rng, float, float], None]  # called with x, z
Placed = tuple[float, float, Painter]  # z, x, painter

PAINTS = (
    (196, 32, 38), (28, 70, 176), (236, 186, 34), (238, 238, 242), (28, 130, 142),
    (24, 26, 34), (224, 106, 28), (108, 30, 96), (60, 150, 220),
)  # fmt: skip
CLOTHES = (
    (206, 48, 92), (46, 62, 120), (240, 224, 210), (92, 52, 130), (228, 132, 44), (38, 40, 48),
    (40, 140, 150), (186, 40, 40),
)  # fmt: skip
SKINS = ((236, 190, 160), (206, 152, 118), (142, 96, 70))


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


def shadow(z: float, x: float, painter: Painter) -> np.ndarray:
    """The ellipse under an object, on the ground: (16, 3)."""
    shapes = {draw_car: (1.1, 2.4, 2.1), draw_tree: (1.6, 0.9, 0)}
    half_x, half_z, middle = shapes.get(painter, (0.4, 0.3, 0))
    return CIRCLE[:, [0, 2, 1]] * (half_x, 0, half_z) + (x + 0.2, 0, z + middle)


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
