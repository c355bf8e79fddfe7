"""Memory limits of inference: batch size, largest image, and clear out-of-memory messages."""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from util.error import RunError, is_out_of_memory

CPU_BATCH_PIXELS = 2 * 473 * 473  # pixels per forward pass; more is no faster on 2 cores
CUDA_BATCH_PIXELS = 32 * 473 * 473  # capped so that the batch rarely depends on free memory
# GPU memory per pixel of a window in float32: the feature maps alive at the same time have about
# 130 channels per input pixel; the rest is for convolution workspaces.
CUDA_BYTES_PER_PIXEL = 2048
IMAGE_BYTES_PER_PIXEL = 4 * 3 * 4  # RGB in float32: scaled, centred, normalised, padded


def windows_that_fit(device: torch.device, crop: tuple[int, int]) -> int:
    """Return how many windows of `crop` fit into a forward pass: half the GPU's free memory.

    PyTorch's cached memory counts as free. On a CPU the number is fixed and small.
    """
    pixels = CPU_BATCH_PIXELS
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        pixels = min(CUDA_BATCH_PIXELS, free // 2 // CUDA_BYTES_PER_PIXEL)
    return max(1, pixels // (crop[0] * crop[1]))


def check_scaled_size(size: tuple[float, float], *, scale: float, device: torch.device) -> None:
    """Raise RunError if a scaled image of this (height, width) cannot fit into memory."""
    need, there = IMAGE_BYTES_PER_PIXEL * size[0] * size[1], total_memory(device)
    if not need <= there:  # infinite and NaN sizes included
        raise RunError(
            f"at scale {scale:g} an image has {size[1]:.4g}x{size[0]:.4g} pixels and needs "
            f"{need / 2**30:.3g} GiB, more than the {there / 2**30:.3g} GiB of this machine's "
            f"{device.type.upper()}: lower TEST.scales or TEST.base_size"
        )


def total_memory(device: torch.device) -> float:
    """Return the memory of a device in bytes, respecting container limits; infinite if unknown."""
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
    """Turn a failed allocation while predicting an image of `size` into a RunError."""
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
