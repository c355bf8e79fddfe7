"""Scores as the table on the console and as the content of scores.json."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from util.evaluation.bootstrap import CONFIDENCE, DRAWS, SEED, Intervals
from util.metric import Scores


def scores_content(
    scores: Scores, ends: Intervals, names: Sequence[str], protocol: dict[str, Any]
) -> dict[str, Any]:
    """What scores.json holds: all scores, their 95 % intervals, and what they depend on."""
    return {
        **asdict(scores),
        "miou_interval": None if np.isnan(ends.miou).any() else ends.miou.tolist(),
        "iou_class_interval": [None if np.isnan(e).any() else e.tolist() for e in ends.iou_class],
        "bootstrap": {"draws": DRAWS, "seed": SEED, "confidence": CONFIDENCE},
        "names": list(names),
        "protocol": protocol,
    }


def table_lines(scores: Scores, ends: Intervals, names: Sequence[str]) -> list[str]:
    """A line for each class, what is absent, and the interval of the mean IoU."""
    width = max(len(name) for name in names)
    lines = [f"{'id':>4} {'class':<{width}}    IoU    Acc"]
    for i, name in enumerate(names):
        note = "  absent" if i in scores.absent else ""
        iou, acc = scores.iou_class[i], scores.acc_class[i]
        lines.append(f"{i:>4} {name:<{width}} {iou:.4f} {acc:.4f}{note}")
    if scores.absent:
        lines.append(
            f"{len(scores.absent)} of {len(names)} classes are absent from labels and predictions "
            f"and count 0; mean IoU over the others: {scores.miou_present:.4f}"
        )
    low, high = ends.miou
    lines.append(f"mIoU with images resampled: {low:.4f} to {high:.4f} (95 % interval)")
    return lines
