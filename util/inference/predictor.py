"""Multi-scale sliding-window prediction: an image of any size -> class probabilities.

The protocol is that of the results tables: softmax averaged over each window and its mirror image,
overlaps averaged by count, mean over scales. The network runs on the windows of all scales in
batches (this file); its small logits are turned into probabilities strip by strip (strips.py).
"""

import logging
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from util.config import Config
from util.data.transform import MEAN, STD
from util.error import RunError
from util.inference.grid import Grid, make_grid, next_8k1, resize, window_starts
from util.inference.memory import check_scaled_size, memory_errors, windows_that_fit
from util.inference.network import gpu_flags, inference_copy
from util.inference.strips import ScaleRows, label_strips

__all__ = ["DAMAGED", "TEST_MODES", "SlidingPredictor", "build_predictor", "window_starts"]

TEST_MODES = ("slide", "whole")
log = logging.getLogger("semseg")

_NOT_FINITE = "the network gives infinite or NaN values instead of logits"
DAMAGED = f"{_NOT_FINITE}: its weights are damaged, or the training that wrote them had diverged"


class SlidingPredictor:
    """Predicts images with a network that maps (N, 3, h, w) to an output with `.logits`.

    Logits may have any size; corners are aligned with the window's. Networks with other input
    sides than 8k+1 define `valid_side(side)`, which returns the next valid side.

    Args:
        model: the network; a copy is used, the original is not modified.
        classes: number of channels of its logits.
        crop: (height, width) of a window; must be valid input sides.
        base_size: long side of the image, in pixels, at scale 1.
        scales: factors on base_size.
        device: device to compute on.
        amp: off, tf32, bf16 or fp16 for the network; everything else is float32.
        mode: slide (windows of `crop`) or whole (the scaled image as one window of any size).
        batch_windows: windows of `crop` per forward pass, including mirrored ones; for other
            sizes the same number of pixels. None: as many as fit into memory now.
        compiled: torch.compile the network; needs mode slide, where all windows have one size.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        classes: int,
        crop: tuple[int, int],
        base_size: int,
        scales: Sequence[float] = (1.0,),
        device: str | torch.device = "cpu",
        amp: str = "off",
        mode: str = "slide",
        batch_windows: int | None = None,
        compiled: bool = False,
    ) -> None:
        assert mode in TEST_MODES and not (compiled and mode == "whole"), mode
        self.device = torch.device(device)
        self.model = inference_copy(model, self.device, amp=amp, compiled=compiled)
        self.amp = amp
        self.classes = classes
        self.crop = crop
        self.base_size = base_size
        self.scales = tuple(scales)
        self.mode = mode
        self.compiled = compiled
        self.batch_windows = batch_windows or windows_that_fit(self.device, crop)
        self._whole = getattr(model, "valid_side", next_8k1) if mode == "whole" else None
        self._dtype = next((p.dtype for p in self.model.parameters()), torch.float32)
        self._mean = torch.tensor(MEAN, device=self.device).view(3, 1, 1)
        self._std = torch.tensor(STD, device=self.device).view(3, 1, 1)

    @torch.inference_mode()
    def probabilities(self, image: np.ndarray) -> Tensor:
        """Predict probabilities: (H, W, 3) uint8 RGB -> (classes, H, W) float32 on the device.

        Raises RunError if memory runs out.
        """
        size = image.shape[:2]
        with memory_errors(size):
            result = torch.empty(self.classes, *size, device=self.device)
            for first, strip in label_strips(self._run_scales(image), size):
                result[:, first : first + len(strip)] = strip.transpose(0, 1)
        return result

    @torch.inference_mode()
    def predict(self, image: np.ndarray) -> np.ndarray:
        """Predict class ids: (H, W, 3) uint8 RGB -> (H, W) uint8, int32 for over 256 classes.

        Unlike `probabilities`, it never stores a map of classes x H x W. Raises RunError if memory
        runs out, or if the network's values are not finite.
        """
        size = image.shape[:2]
        dtype = torch.uint8 if self.classes <= 256 else torch.int32
        with memory_errors(size):
            label = torch.empty(size, dtype=dtype, device=self.device)
            is_nan = torch.zeros((), dtype=torch.bool, device=self.device)
            for first, strip in label_strips(self._run_scales(image), size):
                # On a CPU max() is 2-3 times as fast as argmax() and gives the same indices.
                best = strip.max(dim=1)
                label[first : first + len(strip)] = best.indices
                is_nan |= best.values.isnan().any()  # infinite logits end as NaN, too
            if is_nan:
                hint = f"{_NOT_FINITE}: set TEST.test_amp to bf16 or off"
                raise RunError(hint if self.amp == "fp16" else DAMAGED)
            return label.cpu().numpy()

    def window_at(self, image: np.ndarray, x: int, y: int) -> tuple[Tensor, int, int, tuple]:
        """Return the window of the first scale whose centre is nearest to pixel (x, y).

        Returns the window (1, 3, h, w), the pixel's row and column in it, and the window's (top,
        left, height, width) in image pixels, which may extend beyond the image.
        """
        height, width = image.shape[:2]
        grid = self._grid(height, width, self.scales[0])
        resized = self._scaled(self._pixels(image), grid)
        factors = grid.size[0] / height, grid.size[1] / width
        row = min(round(y * factors[0]), grid.size[0] - 1) + grid.pad[0]
        column = min(round(x * factors[1]), grid.size[1] - 1) + grid.pad[1]
        y0, x0 = (
            min(max(0, at - crop // 2), side - crop)
            for at, crop, side in zip((row, column), grid.window, grid.padded, strict=True)
        )
        window = resized[None, :, y0 : y0 + grid.window[0], x0 : x0 + grid.window[1]]
        box = (
            round((y0 - grid.pad[0]) / factors[0]),
            round((x0 - grid.pad[1]) / factors[1]),
            round(grid.window[0] / factors[0]),
            round(grid.window[1] / factors[1]),
        )
        return window.to(self._dtype), row - y0, column - x0, box

    def _run_scales(self, image: np.ndarray) -> list[ScaleRows]:
        """Run the network on all windows of all scales and their mirror images."""
        height, width = image.shape[:2]
        grids = [self._grid(height, width, scale) for scale in self.scales]
        maps = self._run(self._windows(self._pixels(image), grids))
        scales = []
        for grid in grids:
            count = len(grid.rows) * len(grid.columns)
            # Stored as (h', 2, classes, w'), the order in which strips.py reads it.
            logits = [
                torch.stack([next(maps), next(maps).flip(-1)]).permute(2, 0, 1, 3).contiguous()
                for _ in range(count)
            ]
            scales.append(ScaleRows(grid, logits, weight=1 / len(grids)))
        return scales

    def _pixels(self, image: np.ndarray) -> Tensor:
        if image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(f"image must be RGB of shape (H, W, 3), got {image.shape}")
        pixels = torch.tensor(np.ascontiguousarray(image), device=self.device)  # strides may be < 0
        return pixels.permute(2, 0, 1).float()

    def _grid(self, height: int, width: int, scale: float) -> Grid:
        long_side = scale * self.base_size
        tall, wide = (side * long_side / max(height, width) for side in (height, width))
        least = (0, 0) if self._whole else self.crop
        padded = max(tall, least[0]), max(wide, least[1])
        check_scaled_size(padded, scale=scale, device=self.device)
        return make_grid(
            height, width, long_side=round(long_side), crop=self.crop, whole=self._whole
        )

    def _scaled(self, pixels: Tensor, grid: Grid) -> Tensor:
        """Scale, normalise and pad: (3, H, W) -> (3, *grid.padded)."""
        return grid.pad_image((resize(pixels, grid.size) - self._mean) / self._std)

    def _windows(self, pixels: Tensor, grids: list[Grid]) -> Iterator[Tensor]:
        """Yield each window (3, h, w) of each grid, followed by its mirror image."""
        for grid in grids:
            image = self._scaled(pixels, grid)
            height, width = grid.window
            for y in grid.rows:
                for x in grid.columns:
                    window = image[:, y : y + height, x : x + width]
                    yield window
                    yield window.flip(-1)

    def _run(self, windows: Iterator[Tensor]) -> Iterator[Tensor]:
        """Map windows to float32 logits (classes, h', w') in the same order, in batches."""
        batch: list[Tensor] = []
        for window in windows:
            if batch and (window.shape != batch[0].shape or len(batch) >= self._limit(batch[0])):
                yield from self._forward(batch)
                batch = []
            batch.append(window)
        yield from self._forward(batch)

    def _limit(self, window: Tensor) -> int:
        """Return how many windows of this size go into a forward pass."""
        pixels = self.batch_windows * self.crop[0] * self.crop[1]
        return max(1, pixels // (window.shape[1] * window.shape[2]))

    def _forward(self, batch: list[Tensor]) -> list[Tensor]:
        """Compute the logits of a batch; if GPU memory runs out, halve the batch from now on."""
        try:
            return self._logits(batch)
        except torch.OutOfMemoryError:
            if len(batch) == 1:
                raise
        half = (
            len(batch) + 1
        ) // 2  # outside `except`: the traceback held the failed pass's memory
        torch.cuda.empty_cache()
        pixels = half * batch[0].shape[1] * batch[0].shape[2]
        self.batch_windows = max(1, pixels // (self.crop[0] * self.crop[1]))
        log.warning(
            f"out of GPU memory with {len(batch)} windows in a forward pass, continuing with "
            f"{half}; TEST.batch_windows sets how many"
        )
        return self._forward(batch[:half]) + self._forward(batch[half:])

    def _logits(self, batch: list[Tensor]) -> list[Tensor]:
        inputs, most = torch.stack(batch).to(self._dtype), self._limit(batch[0])
        if self.compiled:  # pad to one batch shape, so that it compiles once
            inputs = torch.cat([inputs, inputs.new_zeros(most - len(batch), *inputs.shape[1:])])
        inputs = inputs.contiguous(memory_format=torch.channels_last)
        is_usual = self.mode == "slide" and len(inputs) == most
        with gpu_flags(self.device, tf32=self.amp == "tf32", tune=is_usual):
            logits = self.model(inputs).logits
        return list(logits[: len(batch)].float())


def build_predictor(
    cfg: Config, model: nn.Module, *, device: torch.device, amp: str
) -> SlidingPredictor:
    """Build the predictor from the TEST section; `amp` comes from `usable_amp`."""
    return SlidingPredictor(
        model,
        classes=cfg.classes,
        crop=(cfg.test_h, cfg.test_w),
        base_size=cfg.base_size,
        scales=cfg.scales,
        device=device,
        amp=amp,
        mode=cfg.test_mode,
        batch_windows=cfg.batch_windows,
        compiled=cfg.test_compile,
    )
