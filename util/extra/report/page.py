"""report.html: the results of a test on a self-contained page without scripts."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from util.data.file import write_text
from util.evaluation.result import Result
from util.extra.report.images import ERROR, VOID, Example, pair_panels, panels, shrunk

LIMIT = 3_000_000  # maximum size of the page in bytes, small enough for e-mail
SIDES = (480, 320, 200, 120)  # candidates for the images' long side in pixels
IMAGES = 3  # number of best, median and worst images
PAIRS = 6
NUMBERED = 24  # maximum number of classes for numbers in the confusion matrix
SHOWN_SHARE = 0.005  # smaller cells are omitted: they would look empty and make the page large


def write_report(
    path: Path,
    result: Result,
    *,
    image_of: np.ndarray,
    colors: np.ndarray,
    load: Callable[[int], tuple[np.ndarray, np.ndarray, np.ndarray]],
    title: str,
) -> None:
    """Write the page, with images as large as LIMIT allows.

    `image_of[l, p]` is the image with the most pixels of label l predicted as p, `colors` (C, 3)
    uint8, load(i) gives image i as RGB (H, W, 3), label and prediction (H, W).
    """
    chosen = choose_images(result.areas.image_miou())
    groups = {
        head: [Example(result.images[i], i, *load(i)) for i in some]
        for head, some in chosen.items()
    }
    pairs = []
    for pair in confused_pairs(result.matrix):
        i = int(image_of[pair])
        pairs.append((pair, Example(result.images[i], i, *load(i)).around(*pair)))
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    shown = [e for some in groups.values() for e in some] + [e for _, e in pairs]
    facts = {"title": title, "groups": groups, "pairs": pairs, **_facts(result, colors, shown)}
    for side in SIDES:
        page = environment.get_template("template.html").render(
            facts,
            panels_of=lambda e, side=side: panels(shrunk(e, side), colors),
            pair_panels_of=lambda e, pair, side=side // 2: pair_panels(
                shrunk(e, side), colors, pair
            ),
        )
        if len(page.encode()) <= LIMIT:
            break
    write_text(path, page)


def choose_images(miou: np.ndarray) -> dict[str, list[int]]:
    """Choose the best, median and worst images by mean IoU (N,), without repetition.

    Images without any class (NaN) are excluded.
    """
    order = [i for i in np.argsort(-miou, kind="stable").tolist() if not np.isnan(miou[i])]
    count = min(IMAGES, -(-len(order) // 3))
    best, order = order[:count], order[count:]
    worst, order = order[::-1][:count], order[: max(0, len(order) - count)]
    middle = max(0, (len(order) - count) // 2)
    return {"Best": best, "Median": order[middle : middle + count], "Worst": worst}


def confused_pairs(matrix: np.ndarray) -> list[tuple[int, int]]:
    """Return up to PAIRS (label, prediction) whose confusion costs the most mean IoU.

    n pixels of class l predicted as p cost about n / union[l] + n / union[p].
    """
    union = np.maximum(matrix.sum(axis=0) + matrix.sum(axis=1) - matrix.diagonal(), 1)
    cost = matrix / union[:, None] + matrix / union
    np.fill_diagonal(cost, 0)
    order = np.argsort(-cost, axis=None, kind="stable")[:PAIRS]
    pairs = zip(*(axis.tolist() for axis in np.unravel_index(order, cost.shape)), strict=True)
    return [pair for pair in pairs if cost[pair] > 0]


def _facts(result: Result, colors: np.ndarray, shown: list[Example]) -> dict[str, Any]:
    """Return the values for the template, except images."""
    scores, names = result.scores, result.names
    ids = sorted({i for e in shown for i in np.unique([e.label, e.pred]).tolist()})
    legend = [(colors[i].tolist(), names[i]) for i in ids if i < len(names)]
    legend += [(VOID.tolist(), "unlabelled"), (ERROR.tolist(), "wrong")]
    return {
        "scores": scores,
        "colors": colors.tolist(),
        "miou": result.areas.image_miou().tolist(),
        "matrix": result.matrix.tolist(),
        "tiles": _tiles(scores),
        "absent": [names[i] for i in scores["absent"]],
        "rows": _rows(result, colors),
        "map": _map(result),
        "legend": legend,
    }


def _tiles(scores: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Return (title, number, note) of the headline scores."""
    protocol = scores["protocol"]
    low, high = scores["miou_interval"] or (0, 0)
    notes = {
        "mIoU": f"{100 * low:.1f} % to {100 * high:.1f} %*" if scores["miou_interval"] else "",
        "mAcc": "mean over classes",
        "aAcc": "of all pixels",
        "fwIoU": "weighted by pixels",
    }
    tiles = [(head, f"{100 * scores[head.lower()]:.1f} %", notes[head]) for head in notes]
    speed = f"{protocol['images_per_second']:g} per second"
    note = "predicted earlier" if protocol["has_prediction"] else speed
    return [*tiles, ("Images", f"{protocol['images']:,}", note)]


def _rows(result: Result, colors: np.ndarray) -> list[dict[str, Any]]:
    """Return the classes, best IoU first; values, interval and share in percent."""
    scores, target = result.scores, result.matrix.sum(axis=1)
    kinds = ("iou_class", "acc_class", "precision_class")
    return [
        {
            "name": result.names[i],
            "color": colors[i].tolist(),
            "values": [100 * scores[kind][i] for kind in kinds],
            "interval": [100 * end for end in scores["iou_class_interval"][i] or []],
            "is_absent": i in scores["absent"],
            "share": 100 * target[i] / max(1, target.sum()),
        }
        for i in np.argsort(-np.array(scores["iou_class"]), kind="stable").tolist()
    ]


def _map(result: Result) -> dict[str, Any]:
    """Lay out the confusion matrix: sizes in pixels, cells as (row, column, share of row)."""
    classes = len(result.names)
    cell, font, smallest = (34, 11, 0.75) if classes <= NUMBERED else (12, 9, 1)
    names = [name if len(name) <= 18 else f"{name[:17]}…" for name in result.names]
    margin = round(max(map(len, names)) * font * 0.6) + 12
    share = result.matrix / np.maximum(result.matrix.sum(axis=1, keepdims=True), 1)
    return {
        "names": names,
        "cell": cell,
        "font": font,
        "smallest": smallest,
        "margin": margin,
        "size": margin + classes * cell,
        "is_numbered": classes <= NUMBERED,
        "cells": [(i, j, share[i, j]) for i, j in np.argwhere(share >= SHOWN_SHARE).tolist()],
    }
