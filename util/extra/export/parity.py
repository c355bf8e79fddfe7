"""Checking that an exported file agrees with this project's predictor, at several sizes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model import Segmentor
from util.error import RunError
from util.extra.export.model import ExportedModel
from util.extra.export.write import example_sizes
from util.inference import SlidingPredictor
from util.inference.predictor import DAMAGED

TOLERANCE = 1e-4  # maximum difference of probabilities


class Unmirrored(nn.Module):
    """Undoes SlidingPredictor's mirroring, which averages each window with its mirror image."""

    def __init__(self, network: Segmentor) -> None:
        super().__init__()
        self.network, self.valid_side = network, network.valid_side

    def forward(self, x: Tensor) -> Any:
        x = torch.stack([x[0], x[1].flip(-1)])
        out = self.network(x)
        logits = torch.stack([out.logits[0], out.logits[1].flip(-1)])
        return out._replace(logits=logits)


def parity(
    model: ExportedModel,
    network: Segmentor,
    *,
    classes: int,
    fixed: tuple[int, int] | None,
    batches: Sequence[int] = (1, 3),
) -> list[str]:
    """Compare the file with this project's predictor at all example sizes; return report lines.

    Deletes the file and raises RunError if labels differ (except at ties) or probabilities differ
    by more than TOLERANCE, or if the network's values are not finite.
    """
    random, lines = np.random.default_rng(0), []
    for size in example_sizes(network, fixed):
        predictor = SlidingPredictor(
            Unmirrored(network),
            classes=classes,
            crop=size,
            base_size=max(size),
            mode="whole",
            batch_windows=64,  # the window and its mirror image in one pass
        )
        for n in batches:
            small = random.integers(0, 256, (n, 9, 9, 3), dtype=np.uint8)
            images = np.stack([_enlarged(image, size) for image in small])
            found = model(images)
            wanted = np.stack([predictor.probabilities(image).numpy() for image in images])
            if not np.isfinite(wanted).all():
                model.path.unlink()
                raise RunError(f"{DAMAGED}; {model.path} is removed")
            if found.ndim == 4:
                off = float(np.abs(found - wanted).max())
                is_equal, what = off <= TOLERANCE, f"probabilities differ by at most {off:.1e}"
            else:
                best = wanted.max(axis=1)
                chosen = np.take_along_axis(wanted, found[:, None].astype(np.int64), 1)[:, 0]
                ties = best - chosen
                is_equal = float(ties.max()) <= TOLERANCE
                equal = (found == wanted.argmax(axis=1)).mean()
                what = f"{equal:.4%} of the labels equal, the others' probabilities within "
                what += f"{ties.max():.1e}"
            lines.append(f"{n} x {size[0]} x {size[1]}: {what}")
            if not is_equal:
                model.path.unlink()
                raise RunError(
                    f"{model.path} does not agree with the network ({lines[-1]}) and was removed: "
                    "export with another torch, onnx or onnxruntime version"
                )
    return lines


def _enlarged(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    pixels = F.interpolate(pixels, size, mode="bilinear", align_corners=True)[0]
    return pixels.permute(1, 2, 0).round().byte().numpy()
