"""Synthetic test results, without running a test."""

import json
from pathlib import Path

import numpy as np

from util.evaluation.bootstrap import Areas
from util.metric import ImageCounts, count_pixels

NAMES = ["sky", "road", "car", "never"]


def counted(rng: np.random.Generator, *, wrong: float, images: int = 30) -> ImageCounts:
    """Count fixed labels of three classes; a fraction of the second class is predicted wrong."""
    counts = ImageCounts(len(NAMES))
    labels = np.random.default_rng(5).integers(0, 3, (images, 12, 12))
    labels[1:][labels[1:] == 2] = 0  # the third class is only in one image
    for i, label in enumerate(labels):
        pred = np.where((label == 1) & (rng.random(label.shape) < wrong), 0, label)
        counts.add(count_pixels(pred, label, classes=len(NAMES), ignore_label=255), image=i)
    return counts


def save(folder: Path, counts: ImageCounts, names: list[str] = NAMES, sha: str = "x") -> Path:
    """Write what a comparison reads from a result folder of tool/test.py."""
    folder.mkdir()
    scores, areas = counts.total.scores(), Areas.stack(counts.areas)
    content = {"miou": scores.miou, "iou_class": scores.iou_class, "names": names}
    content["protocol"] = {"list_sha256": sha}
    (folder / "scores.json").write_text(json.dumps(content))
    images = [f"p{i}" for i in range(len(counts.areas))]
    matrix = counts.total.matrix.numpy()
    np.savez_compressed(folder / "confusion.npz", matrix=matrix, images=images, **vars(areas))
    return folder
