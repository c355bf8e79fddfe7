"""What fits into memory: a batch of windows, a scaled image; and a sentence for what does not."""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from util.error import RunError, is_out_of_memory

CPU_BATCH_PIXELS = 2 * 473 * 473  # of one forward pass; more is no faster on 2 cores
CUDA_BATCH_PIXELS = 32 * 473 * 473  # a limit, so that the choice seldom depends on the free memory
# Memory for a pixel of a window in float32: feature maps that live at the same time have some 130
# channels a pixel, by their shapes; the rest is for the workspaces of convolutions.
CUDA_BYTES_PER_PIXEL = 2048
IMAGE_BYTES_PER_PIXEL = 4 * 3 * 4  # RGB in float32: scaled, centred, normalised, padded


def windows_that_fit(device: torch.device, crop: tuple[int, int]) -> int:
    """Windows of `crop` in a forward pass: those of half the GPU's free memory; few on a CPU.

    Memory that PyTorch keeps for later use is free, too.
    """
    pixels = CPU_BATCH_PIXELS
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        pixels = min(CUDA_BATCH_PIXELS, free // 2 // CUDA_BYTES_PER_PIXEL)
    return max(1, pixels // (crop[0] * crop[1]))


def check_scaled_size(size: tuple[float, float], *, scale: float, device: torch.device) -> None:
    """Raise RunError for a scaled image of this (height, width) that cannot fit, before trying."""
    need, there = IMAGE_BYTES_PER_PIXEL * size[0] * size[1], total_memory(device)
    if not need <= there:  # infinite and NaN sizes included
        raise RunError(
            f"at scale {scale:g} an image has {size[1]:.4g}x{size[0]:.4g} pixels and needs "
            f"{need / 2**30:.3g} GiB, more than the {there / 2**30:.3g} GiB of this machine's "
            f"{device.type.upper()}: lower TEST.scales or TEST.base_size"
        )


def total_memory(device: torch.device) -> float:
    """Bytes that a process can have on a device at most; infinite where it is not known."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # not on Windows
        return math.inf
    try:  # a container's limit
        return min(total, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):
        return total


@contextmanager
def memory_errors(size: tuple[int, int]) -> Iterator[None]:
    """Turns an allocation that fails while an image of `size` is predicted into a RunError."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise RunError(
            f"out of memory for an image of {size[1]}x{size[0]} pixels: lower TEST.scales, "
            "TEST.base_size, TEST.batch_windows or TEST.test_h and test_w, use TEST.test_amp, or "
            "set TEST.test_mode slide"
        ) from None
