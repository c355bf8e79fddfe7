"""report.html: what a test found, on one page that needs no network, no scripts and no server."""

from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from util.evaluation.bootstrap import CONFIDENCE, Areas
from util.extra.report.charts import class_table, confusion_svg, number, percent
from util.extra.report.images import Example, image_figure, legend, pair_figure, shrunk

STYLE = Path(__file__).with_name("style.css")
LIMIT = 3_000_000  # bytes of the page: it can be sent by mail
SIDES = (480, 320, 200, 120)  # long side of its images in pixels: the first that fits is taken
IMAGES = 3  # shown of the best, the typical and the worst
PAIRS = 6


@dataclass(frozen=True)
class Results:
    """What a test of N images and C classes found.

    `scores` is the content of scores.json. `matrix` (C, C) counts pixels by label and prediction,
    `image_of[l, p]` is the image with the most of each. `load(i)` gives image i as RGB
    (H, W, 3), label and prediction (H, W). `colors` (C, 3) uint8.
    """

    scores: dict[str, Any]
    matrix: np.ndarray
    areas: Areas
    image_of: np.ndarray
    image_names: list[str]
    colors: np.ndarray
    load: Callable[[int], tuple[np.ndarray, np.ndarray, np.ndarray]]


def write_report(path: Path, results: Results, *, title: str) -> None:
    """Write the page, its images as large as LIMIT allows."""
    groups = {
        head: [_example(results, i) for i in chosen]
        for head, chosen in choose_images(results.areas.image_miou()).items()
    }
    pairs = [
        (_example(results, int(results.image_of[pair])).around(*pair), pair)
        for pair in confused_pairs(results.matrix)
    ]
    for side in SIDES:
        page = _page(results, groups, pairs, title=title, side=side)
        if len(page.encode()) <= LIMIT:
            break
    path.write_text(page, encoding="utf-8")


def choose_images(miou: np.ndarray) -> dict[str, list[int]]:
    """Best, typical (about the median) and worst images by their mean IoU (N,); none twice.

    Images without any class (NaN) are left out.
    """
    order = [i for i in np.argsort(-miou, kind="stable").tolist() if not np.isnan(miou[i])]
    count = min(IMAGES, -(-len(order) // 3))
    best, order = order[:count], order[count:]
    worst, order = order[::-1][:count], order[: max(0, len(order) - count)]
    middle = max(0, (len(order) - count) // 2)
    return {"Best": best, "Typical": order[middle : middle + count], "Worst": worst}


def confused_pairs(matrix: np.ndarray) -> list[tuple[int, int]]:
    """(label, prediction) of the confusions that cost the mean IoU most, at most PAIRS.

    n pixels of class l predicted as p cost about n / union of l there and n / union of p here.
    """
    union = np.maximum(matrix.sum(axis=0) + matrix.sum(axis=1) - matrix.diagonal(), 1)
    cost = matrix / union[:, None] + matrix / union
    np.fill_diagonal(cost, 0)
    order = np.argsort(-cost, axis=None, kind="stable")[:PAIRS]
    pairs = zip(*(axis.tolist() for axis in np.unravel_index(order, cost.shape)), strict=True)
    return [pair for pair in pairs if cost[pair] > 0]


def _example(results: Results, index: int) -> Example:
    return Example(results.image_names[index], index, *results.load(index))


def _page(
    results: Results,
    groups: dict[str, list[Example]],
    pairs: list[tuple[Example, tuple[int, int]]],
    *,
    title: str,
    side: int,
) -> str:
    """The whole page, its images at most `side` pixels long."""
    names, colors, miou = results.scores["names"], results.colors, results.areas.image_miou()
    shown = [e for examples in groups.values() for e in examples] + [e for e, _ in pairs]
    galleries = "".join(
        f"<h3>{head}</h3>"
        + "".join(
            image_figure(shrunk(e, side), colors, note=f"mIoU {percent(miou[e.index])}")
            for e in examples
        )
        for head, examples in groups.items()
        if examples
    )
    target = results.matrix.sum(axis=1)
    confusions = "".join(
        pair_figure(
            shrunk(e, side // 2),
            colors,
            pair=pair,
            names=names,
            note=f"{number(results.matrix[pair])} pixels, "
            f"{percent(results.matrix[pair] / max(1, target[pair[0]]))} of {names[pair[0]]}",
        )
        for e, pair in pairs
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>
{STYLE.read_text(encoding="utf-8")}</style>
</head>
<body>
<header><h1>Test report</h1><p class="muted">{escape(title)}</p></header>
<main>
{_summary(results.scores)}
<section><h2>Classes</h2>{class_table(results.scores, colors, target)}</section>
<section><h2>Confusion matrix</h2>
<p class="muted">Rows are labels, columns predictions: percent of the label's pixels.</p>
{confusion_svg(results.matrix, names)}</section>
<section><h2>Images</h2>
<p class="muted">By the mean IoU of the classes in each image.</p>
{legend(names, colors, shown)}{galleries}</section>
<section><h2>Most confused classes</h2>
<p class="muted">The confusions that cost the mean IoU most, where each is largest (outlined).</p>
<div class="pairs">{confusions or "<p>There is none.</p>"}</div></section>
<section><h2>How it was measured</h2>{_protocol(results.scores["protocol"])}</section>
</main>
</body>
</html>
"""


def _summary(scores: dict[str, Any]) -> str:
    """Tiles with the numbers of the results tables, and what to know about them."""
    low, high = scores["miou_interval"] or (None, None)
    protocol, absent = scores["protocol"], scores["absent"]
    speed = f"{protocol['images_per_second']:g} a second"
    tiles = [
        ("mIoU", percent(scores["miou"]), f"{percent(low)} to {percent(high)}*"),
        ("mAcc", percent(scores["macc"]), "mean over classes"),
        ("aAcc", percent(scores["aacc"]), "of all pixels"),
        ("fwIoU", percent(scores["fwiou"]), "weighted by pixels"),
        (
            "Images",
            number(protocol["images"]),
            "predicted earlier" if protocol["has_prediction"] else speed,
        ),
    ]
    cells = "".join(
        f'<div class="tile"><span>{head}</span><b>{value}</b><small>{note}</small></div>'
        for head, value, note in tiles
    )
    note = (
        f'<p class="muted">* {100 * CONFIDENCE:g} % interval, by drawing as many images with '
        f"replacement {number(scores['bootstrap']['draws'])} times.</p>"
    )
    if absent:
        listed = ", ".join(scores["names"][i] for i in absent)
        note += (
            f"<p>Absent from labels and predictions, counted 0: {escape(listed)}. Mean IoU over "
            f"the others: {percent(scores['miou_present'])}.</p>"
        )
    return f'<section><div class="tiles">{cells}</div>{note}</section>'


def _protocol(protocol: dict[str, Any]) -> str:
    """Every entry of the protocol as a row."""
    rows = "".join(
        f"<tr><th>{escape(key.replace('_', ' '))}</th><td>{escape(_text(value))}</td></tr>"
        for key, value in protocol.items()
    )
    return f'<table class="protocol">{rows}</table>'


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {v}" for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(str(v) for v in value)
    return {None: "unknown", True: "yes", False: "no"}.get(value, str(value))
