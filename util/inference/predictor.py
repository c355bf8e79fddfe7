"""The one sliding window: an image of any size -> class probabilities, at several scales.

The protocol is that of the results tables: each window also mirrored, softmax, mean over the two,
overlaps averaged by count, mean over scales. First the network runs on the windows of all scales
in batches (this file), then its small logits become probabilities in strips (strips.py).
"""

import logging
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from util.config import Config
from util.data.transform import MEAN, STD
from util.inference.grid import Grid, make_grid, next_8k1, resize, window_starts
from util.inference.memory import check_scaled_size, memory_errors, windows_that_fit
from util.inference.network import gpu_flags, inference_copy
from util.inference.strips import ScaleRows, label_strips

__all__ = ["TEST_MODES", "SlidingPredictor", "build_predictor", "window_starts"]

TEST_MODES = ("slide", "whole")
log = logging.getLogger("semseg")


class SlidingPredictor:
    """Predicts images with a network that maps (N, 3, h, w) to an output with `.logits`.

    Its logits may have any size; their corners are those of the window. A network that takes
    other sides than 8k+1 says which by a method `valid_side`: side -> the next one it takes.

    Args:
        model: the network. A copy of it is used, the one handed in stays as it is, where it is.
        classes: number of channels of its logits.
        crop: (height, width) of a window, sides that the network takes.
        base_size: long side of the image, in pixels, at scale 1.
        scales: factors on base_size.
        device: where to compute.
        amp: off, tf32, bf16 or fp16 inside the network; everything around it stays float32.
        mode: slide (windows of `crop`) or whole (the scaled image as one window of any size).
        batch_windows: windows of `crop` in a forward pass, mirror images counted, or other ones of
            as many pixels; None: as many as fit when this object is made.
        compiled: torch.compile the network; takes windows of one size, so mode slide alone.
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
        """(H, W, 3) uint8 RGB -> (classes, H, W) float32 on the device; they sum to 1.

        Raises RunError where memory does not suffice.
        """
        size = image.shape[:2]
        with memory_errors(size):
            result = torch.empty(self.classes, *size, device=self.device)
            for first, strip in label_strips(self._scales_of(image), size):
                result[:, first : first + len(strip)] = strip.transpose(0, 1)
        return result

    @torch.inference_mode()
    def predict(self, image: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 RGB -> (H, W) class ids: uint8, or int32 for more than 256 classes.

        Unlike that of `probabilities`, its memory does not grow with classes x H x W. Raises
        RunError where memory does not suffice.
        """
        size = image.shape[:2]
        dtype = torch.uint8 if self.classes <= 256 else torch.int32
        with memory_errors(size):
            label = torch.empty(size, dtype=dtype, device=self.device)
            for first, strip in label_strips(self._scales_of(image), size):
                # max() is 2-3 times as fast as argmax() on a CPU, with the same indices.
                label[first : first + len(strip)] = strip.max(dim=1).indices
            return label.cpu().numpy()

    def window_at(self, image: np.ndarray, x: int, y: int) -> tuple[Tensor, int, int, tuple]:
        """The window of the first scale that has a pixel of the image nearest its middle.

        Returns the window (1, 3, h, w), the pixel's row and column in it, and the (top, left,
        height, width) of the window in pixels of the image (beyond it where it is padded).
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

    def _scales_of(self, image: np.ndarray) -> list[ScaleRows]:
        """Run the network on all windows of all scales, each also mirrored."""
        height, width = image.shape[:2]
        grids = [self._grid(height, width, scale) for scale in self.scales]
        maps = self._run(self._windows(self._pixels(image), grids))
        scales = []
        for grid in grids:
            count = len(grid.rows) * len(grid.columns)
            # (h', 2, classes, w') of each: the order in which strips read it
            logits = [
                torch.stack([next(maps), next(maps).flip(-1)]).permute(2, 0, 1, 3).contiguous()
                for _ in range(count)
            ]
            scales.append(ScaleRows(grid, logits, weight=1 / len(grids)))
        return scales

    def _pixels(self, image: np.ndarray) -> Tensor:
        if image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(f"image must be RGB of shape (H, W, 3), got {image.shape}")
        pixels = torch.tensor(np.ascontiguousarray(image), device=self.device)  # it may be flipped
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
        """(3, H, W) pixels -> (3, *grid.padded) normalised."""
        return grid.pad_image((resize(pixels, grid.size) - self._mean) / self._std)

    def _windows(self, pixels: Tensor, grids: list[Grid]) -> Iterator[Tensor]:
        """(3, h, w) of all grids in turn: each window as it is, then mirrored."""
        for grid in grids:
            image = self._scaled(pixels, grid)
            height, width = grid.window
            for y in grid.rows:
                for x in grid.columns:
                    window = image[:, y : y + height, x : x + width]
                    yield window
                    yield window.flip(-1)

    def _run(self, windows: Iterator[Tensor]) -> Iterator[Tensor]:
        """Windows -> float32 logits (classes, h', w') in the same order, computed in batches."""
        batch: list[Tensor] = []
        for window in windows:
            if batch and (window.shape != batch[0].shape or len(batch) >= self._most(batch[0])):
                yield from self._forward(batch)
                batch = []
            batch.append(window)
        yield from self._forward(batch)

    def _most(self, window: Tensor) -> int:
        """Windows like this one in a forward pass."""
        pixels = self.batch_windows * self.crop[0] * self.crop[1]
        return max(1, pixels // (window.shape[1] * window.shape[2]))

    def _forward(self, batch: list[Tensor]) -> list[Tensor]:
        """The logits of a batch; in halves, from now on, where a GPU's memory does not suffice."""
        try:
            return self._logits(batch)
        except torch.OutOfMemoryError:
            if len(batch) == 1:
                raise
        half = (len(batch) + 1) // 2  # here the error, and with it the failed pass, is gone
        torch.cuda.empty_cache()
        pixels = half * batch[0].shape[1] * batch[0].shape[2]
        self.batch_windows = max(1, pixels // (self.crop[0] * self.crop[1]))
        log.warning(
            f"out of GPU memory with {len(batch)} windows in a forward pass, continuing with "
            f"{half}; TEST.batch_windows sets how many"
        )
        return self._forward(batch[:half]) + self._forward(batch[half:])

    def _logits(self, batch: list[Tensor]) -> list[Tensor]:
        inputs, most = torch.stack(batch).to(self._dtype), self._most(batch[0])
        if self.compiled:  # one shape for all batches, so that it compiles once
            inputs = torch.cat([inputs, inputs.new_zeros(most - len(batch), *inputs.shape[1:])])
        inputs = inputs.contiguous(memory_format=torch.channels_last)
        is_usual = self.mode == "slide" and len(inputs) == most
        with gpu_flags(self.device, tf32=self.amp == "tf32", tune=is_usual):
            logits = self.model(inputs).logits
        return list(logits[: len(batch)].float())


def build_predictor(
    cfg: Config, model: nn.Module, *, device: torch.device, amp: str
) -> SlidingPredictor:
    """The predictor of the TEST section; `amp` is what the device can do of TEST.test_amp."""
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
