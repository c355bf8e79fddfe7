"""benchmark test: the plain loop and the predictor of tool/test.py, at one scale and at six."""

import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from model import build_model, load_trained
from util.config import Config
from util.data.image import read_image
from util.data.list_file import read_list
from util.data.transform import MEAN, STD
from util.distributed.device import usable_amp
from util.extra.benchmark.race import installed
from util.extra.benchmark.record import Record
from util.extra.golden import fill, smooth_image
from util.extra.sliding_window_reference import enlarged_logits, plain_loop, side_8k1
from util.extra.timer import Timer, Turn
from util.inference import build_predictor
from util.inference.grid import resize, scaled_size
from util.training.checkpoint import checkpoints, find_checkpoint

SCALES = ([1.0], [0.5, 0.75, 1.0, 1.25, 1.5, 1.75])
DRAWN_SIZE = (384, 512)  # height, width of generated images
SALT = "benchmark"  # seed of random weights and images


@dataclass(frozen=True)
class Row:
    """A row of the table: times in seconds per image, agreement with the plain loop."""

    scales: list[float]
    method: str
    seconds: float  # median
    fastest: float
    slowest: float
    network_seconds: float
    besides: float  # time outside the network divided by time inside
    ratio: float  # speed-up over the plain loop
    equal_labels: float  # fraction of pixels
    max_difference: float  # of probabilities


def run(record: Record, *, cfg: Config, count: int, runs: int, device: torch.device) -> None:
    """Add the rows of the plain loop and the predictor, with the same weights and images."""
    model, weights = choose_weights(cfg)
    images, source = choose_images(cfg, count)
    print(f"test: weights: {weights}; images: {source}; {cfg.test_mode}", flush=True)
    kinds = ["off"]
    if usable_amp("bf16", device) == "bf16":
        kinds.append("bf16")
    network = f"{type(model).__name__}{cfg.layers}, {cfg.classes} classes, crop "
    network += f"{cfg.test_h}x{cfg.test_w}, {images[0].shape[1]}x{images[0].shape[0]}"
    for scales in SCALES:
        for row in compare(cfg, scales, model, images, device, kinds=kinds, runs=runs):
            values = asdict(row)
            name = f"{network}, {len(values.pop('scales'))} scales, {values.pop('method')}"
            record.add("test", name, **values)


def choose_weights(cfg: Config) -> tuple[nn.Module, str]:
    """Load the checkpoint tool/test.py would use, else random weights; also describe it."""
    if cfg.model_path or (cfg.save_path and checkpoints(cfg.save_path)):
        path = find_checkpoint(cfg.model_path, cfg.save_path)
        return load_trained(cfg, path), path
    return fill(build_model(cfg), SALT), "random (no checkpoint)"


def choose_images(cfg: Config, count: int) -> tuple[list[np.ndarray], str]:
    """Load the first images of the test list, else generate some; also describe them."""
    path = cfg.test_list or cfg.val_list
    if path and Path(path).is_file():
        samples = read_list(path, cfg.data_root, has_labels=cfg.split != "test")[:count]
        return [read_image(s.image) for s in samples], f"{len(samples)} of {path}"
    height, width = DRAWN_SIZE
    drawn = [smooth_image(f"{SALT}{i}", height, width) for i in range(count)]
    return drawn, f"{count} generated, {height}x{width} (no list)"


def compare(
    cfg: Config,
    scales: list[float],
    model: nn.Module,
    images: list[np.ndarray],
    device: torch.device,
    *,
    kinds: list[str],
    runs: int,
) -> list[Row]:
    """Return the rows for these scales, the plain loop first."""
    model = model.to(device).eval()
    protocol: dict[str, Any] = {
        "crop": (cfg.test_h, cfg.test_w),
        "base_size": cfg.base_size,
        "scales": scales,
    }
    predictors: dict[str, Any] = {
        f"engine {'float32' if kind == 'off' else kind}": build_predictor(
            replace(cfg, scales=scales), model, device=device, amp=kind
        )
        for kind in kinds
    }
    watches = {name: Timer(p.model, device) for name, p in predictors.items()}
    usual = build_model(replace(cfg, classifier="stepwise", init_weight="")).to(device).eval()
    usual.load_state_dict(model.state_dict())
    plain = Timer(usual, device)
    logits = enlarged_logits(usual, device)
    if installed("monai") and cfg.test_mode == "slide":
        predictors["MONAI"] = MonaiPredictor(logits, device, **protocol)
        watches["MONAI"] = Timer(usual, device)
    turns: dict[str, list[Turn]] = {"plain loop": [], **{name: [] for name in predictors}}
    equal: dict[str, list[float]] = {name: [] for name in predictors}
    differences: dict[str, list[float]] = {name: [] for name in predictors}
    for run in range(runs):
        for image in images:
            turn, probs = plain.time(
                partial(
                    plain_loop,
                    logits,
                    image,
                    classes=cfg.classes,
                    **protocol,
                    whole=side_8k1 if cfg.test_mode == "whole" else None,
                )
            )
            turns["plain loop"].append(turn)
            for name, predictor in predictors.items():
                if run == 0:  # also warms up
                    found = predictor.probabilities(image).permute(1, 2, 0).cpu().numpy()
                    differences[name].append(float(np.abs(found - probs).max()))
                turn, label = watches[name].time(partial(predictor.predict, image))
                turns[name].append(turn)
                equal[name].append(float((label == probs.argmax(axis=2)).mean()))
    base = turns["plain loop"]
    return [
        summarise(
            scales,
            name,
            own,
            base,
            equal_labels=statistics.mean(equal.get(name, [1.0])),
            max_difference=max(differences.get(name, [0.0])),
        )
        for name, own in turns.items()
    ]


class MonaiPredictor:
    """The test protocol with MONAI's SlidingWindowInferer, float32, batches of two windows."""

    def __init__(
        self,
        logits: Callable[[Tensor], Tensor],
        device: torch.device,
        *,
        crop: tuple[int, int],
        base_size: int,
        scales: list[float],
    ) -> None:
        from monai.inferers import SlidingWindowInferer

        self._logits, self._device = logits, device
        self._base_size, self._scales = base_size, scales
        self._infer = SlidingWindowInferer(crop, sw_batch_size=1, overlap=1 / 3, mode="constant")

    @torch.inference_mode()
    def probabilities(self, image: np.ndarray) -> Tensor:
        """(H, W, 3) uint8 -> (classes, H, W)."""
        pixels = torch.from_numpy(image.astype(np.float32) - MEAN) / torch.tensor(STD)
        pixels = pixels.float().permute(2, 0, 1).to(self._device)
        height, width = image.shape[:2]
        maps = []
        for scale in self._scales:
            size = scaled_size(height, width, round(scale * self._base_size))
            found = self._infer(resize(pixels, size)[None], self._mean_of_two)[0]
            maps.append(resize(found, (height, width)))
        return torch.stack(maps).mean(dim=0)

    def predict(self, image: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 -> ids (H, W)."""
        return self.probabilities(image).argmax(0).cpu().numpy()

    def _mean_of_two(self, windows: Tensor) -> Tensor:
        one, other = self._logits(torch.cat([windows, windows.flip(3)])).softmax(1).chunk(2)
        return (one + other.flip(3)) / 2


def summarise(
    scales: list[float],
    method: str,
    turns: list[Turn],
    base: list[Turn],
    *,
    equal_labels: float,
    max_difference: float,
) -> Row:
    """Compute medians and extremes over all turns."""
    seconds = [turn.seconds for turn in turns]
    return Row(
        scales,
        method,
        seconds=statistics.median(seconds),
        fastest=min(seconds),
        slowest=max(seconds),
        network_seconds=statistics.median(t.network for t in turns),
        besides=statistics.median(t.seconds / t.network - 1 for t in turns),
        ratio=statistics.median(b.seconds / t.seconds for b, t in zip(base, turns, strict=True)),
        equal_labels=equal_labels,
        max_difference=max_difference,
    )
