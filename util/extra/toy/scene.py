"""Procedural street scenes with exact labels: the images of the toy dataset.

A scene is laid out in metres (x right, y up from the ground, z ahead), seen through a pinhole
camera and painted far to near, so that nearer objects occlude. It depends on nothing but the
random numbers and the size. Class ids are the lines of dataset/toy_names.txt; 255 is unlabeled.
"""

import numpy as np

from util.extra.toy.canvas import VOID, Canvas, Rng
from util.extra.toy.objects import Placed, draw_bonnet, place_objects, shadow
from util.extra.toy.photo import mark_outlines, photograph
from util.extra.toy.street import draw_buildings, draw_road, draw_roadside, draw_sky, draw_skyline

__all__ = ["MIN_SIZE", "VERSION", "VOID", "draw_scene"]

VERSION = 1  # raise it when the drawing changes, so that older folders are not taken for new ones
MIN_SIZE = 64


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
