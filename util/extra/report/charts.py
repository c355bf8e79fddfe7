"""Numbers of the report as HTML: bars of the classes, the confusion matrix as SVG."""

from html import escape
from typing import Any

import numpy as np

NUMBERED = 24  # classes up to which a cell of the confusion matrix has room for its number
SHOWN_SHARE = 0.005  # smaller cells are left out: they would look empty and make the page large


def percent(value: float) -> str:
    """`58.4 %` of a fraction; a dash where it is unknown."""
    return "-" if value is None or np.isnan(value) else f"{100 * value:.1f} %"


def number(value: int) -> str:
    """Digits in groups of three."""
    return f"{int(value):,}"


def swatch(color: np.ndarray) -> str:
    """A patch of an RGB colour."""
    return f'<i class="swatch" style="background:rgb({",".join(map(str, color.tolist()))})"></i>'


def class_table(scores: dict[str, Any], colors: np.ndarray, target: np.ndarray) -> str:
    """A row for each class, best IoU first: bar with its 95 % interval, IoU, Acc, precision, share.

    target (C,): pixels of each label.
    """
    rows = []
    for i in np.argsort(-np.array(scores["iou_class"]), kind="stable").tolist():
        iou, interval = scores["iou_class"][i], scores["iou_class_interval"][i]
        whisker = ""
        if interval is not None:
            low, high = (100 * end for end in interval)
            whisker = f'<s style="left:{low:.2f}%;width:{high - low:.2f}%"></s>'
        values = (iou, scores["acc_class"][i], scores["precision_class"][i])
        is_absent = i in scores["absent"]
        cells = "".join(f"<td>{'-' if is_absent else f'{100 * v:.1f}'}</td>" for v in values)
        rows.append(
            f"<tr><th>{swatch(colors[i])}{escape(scores['names'][i])}</th>"
            f'<td class="bar"><div><b style="width:{100 * iou:.2f}%"></b>{whisker}</div></td>'
            f'{cells}<td class="wide">{100 * target[i] / max(1, target.sum()):.2f}</td></tr>'
        )
    return (
        '<div class="scroll"><table class="classes"><thead><tr><th>Class</th>'
        '<th class="bar muted">IoU and its 95 % interval</th><th>IoU</th><th>Acc</th>'
        '<th><abbr title="precision">Prec</abbr></th><th class="wide">Pixels</th></tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
        '<p class="muted">All in percent.</p>'
    )


def confusion_svg(matrix: np.ndarray, names: list[str]) -> str:
    """Counts (C, C) as shares of their row: hits in one colour, confusions in another."""
    classes = len(names)
    cell, font, smallest = (34, 11, 0.75) if classes <= NUMBERED else (12, 9, 1)
    shown = [name if len(name) <= 18 else f"{name[:17]}…" for name in names]
    margin = round(max(map(len, shown)) * font * 0.6) + 12
    size = margin + classes * cell
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    parts = []
    for i, name in enumerate(shown):
        middle = margin + (i + 0.5) * cell
        label = escape(name)
        parts.append(
            f'<text x="{margin - 6}" y="{middle + font * 0.35:g}" class="l">{label}</text>'
        )
        parts.append(
            f'<text transform="translate({middle + font * 0.35:g} {margin - 6}) rotate(-90)">'
            f"{label}</text>"
        )
    for row, column in np.argwhere(share >= SHOWN_SHARE).tolist():
        value, x, y = share[row, column], margin + column * cell, margin + row * cell
        kind = "hit" if row == column else "miss"
        tip = escape(f"{names[row]} as {names[column]}: {percent(value)}")
        parts.append(
            f'<rect x="{x}" y="{y}" width="{cell - 1}" height="{cell - 1}" class="{kind}" '
            f'fill-opacity="{0.06 + 0.94 * value:.2f}"><title>{tip}</title></rect>'
        )
        if classes <= NUMBERED and round(100 * value) >= 1:
            strong = " strong" if value > 0.5 else ""
            parts.append(
                f'<text x="{x + cell / 2}" y="{y + cell / 2 + 4}" class="n{strong}">'
                f"{100 * value:.0f}</text>"
            )
    return (
        f'<div class="scroll"><svg viewBox="0 0 {size} {size}" font-size="{font}" role="img" '
        f'aria-label="confusion matrix" style="max-width:{1.4 * size:.0f}px;'
        f'min-width:{smallest * size:.0f}px">'
        f'<rect x="{margin}" y="{margin}" width="{classes * cell}" height="{classes * cell}" '
        f'class="ground"/>{"".join(parts)}</svg></div>'
    )
