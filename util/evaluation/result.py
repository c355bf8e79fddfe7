"""The result of a test: scores.json, confusion.npz and the table on the console."""

import json
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from util.data.file import replacing, write_text
from util.error import DataError
from util.evaluation.bootstrap import CONFIDENCE, DRAWS, SEED, Areas, draw_counts, intervals
from util.metric import ImageCounts


@dataclass(frozen=True)
class Result:
    """Result of a test on N images and C classes, as stored in scores.json and confusion.npz.

    `matrix` (C, C) counts pixels by label and prediction; `areas` has counts for each of `images`.
    """

    scores: dict[str, Any]
    matrix: np.ndarray
    areas: Areas
    images: list[str]

    @property
    def names(self) -> list[str]:
        """Class names."""
        return self.scores["names"]

    def save(self, folder: Path) -> None:
        """Write both files, scores.json last: if it exists, the result is complete."""
        with replacing(folder / "confusion.npz") as path, path.open("wb") as file:
            np.savez_compressed(file, matrix=self.matrix, images=self.images, **vars(self.areas))
        write_text(folder / "scores.json", json.dumps(self.scores, indent=2) + "\n")

    def table(self) -> list[str]:
        """Format one line per class, absent classes and the interval of the mean IoU."""
        scores, width = self.scores, max(map(len, self.names))
        lines = [f"{'id':>4} {'class':<{width}}    IoU    Acc"]
        for i, name in enumerate(self.names):
            note = "  absent" if i in scores["absent"] else ""
            iou, acc = scores["iou_class"][i], scores["acc_class"][i]
            lines.append(f"{i:>4} {name:<{width}} {iou:.4f} {acc:.4f}{note}")
        if scores["absent"]:
            lines.append(
                f"{len(scores['absent'])} of {len(self.names)} classes are absent from labels and "
                f"predictions and count 0; mean IoU over the others: {scores['miou_present']:.4f}"
            )
        if scores["miou_interval"]:
            low, high = scores["miou_interval"]
            lines.append(f"mIoU, 95 % bootstrap interval over images: {low:.4f} to {high:.4f}")
        return lines


def make_result(
    counts: ImageCounts, *, names: Sequence[str], images: Sequence[str], protocol: dict[str, Any]
) -> Result:
    """Compute scores and 95 % intervals from counts and combine them with the protocol."""
    areas = Areas.stack(counts.areas)
    ends = intervals(areas, draw_counts(len(images)))
    scores = {
        **asdict(counts.total.scores()),
        "miou_interval": None if np.isnan(ends.miou).any() else ends.miou.tolist(),
        "iou_class_interval": [None if np.isnan(e).any() else e.tolist() for e in ends.iou_class],
        "bootstrap": {"draws": DRAWS, "seed": SEED, "confidence": CONFIDENCE},
        "names": list(names),
        "protocol": protocol,
    }
    return Result(scores, counts.total.matrix.numpy(), areas, list(images))


def read_result(folder: Path) -> Result:
    """Load what `Result.save` wrote. Raises DataError if files are missing or damaged."""
    scores_path, counts_path = folder / "scores.json", folder / "confusion.npz"
    for path in (scores_path, counts_path):
        if not path.is_file():
            raise DataError(
                f"no {path}: give result folders written by tool/test.py; for an older folder, "
                "score its predictions again with TEST.has_prediction True"
            )
    try:
        scores = json.loads(scores_path.read_text(encoding="utf-8"))
        with np.load(counts_path) as counts:
            areas = Areas(**{field.name: counts[field.name] for field in fields(Areas)})
            result = Result(scores, counts["matrix"], areas, counts["images"].tolist())
        _check(result)
    except (KeyError, TypeError, ValueError, EOFError, RecursionError, zipfile.BadZipFile):
        raise DataError(
            f"{folder} holds a damaged scores.json or confusion.npz: test again"
        ) from None
    return result


def scored_images(folder: Path) -> set[str]:
    """Return the names of the images whose scores are in the folder; none if it has no result."""
    try:
        return {*read_result(folder).images}
    except DataError:
        return set()


def _check(result: Result) -> None:
    """Raise TypeError or ValueError unless types and shapes are as written by `save`."""
    names, images = result.names, result.images
    shape = (len(images), len(names))
    texts = [*names, *images, result.scores["protocol"]["list_sha256"]]
    if not (isinstance(names, list) and all(isinstance(text, str) for text in texts)):
        raise TypeError
    if np.array(result.scores["iou_class"], float).shape != shape[1:]:
        raise ValueError
    float(result.scores["miou"])
    for area in vars(result.areas).values():
        if area.shape != shape or area.dtype.kind not in "iu":
            raise ValueError
