"""Measuring a machine's ceilings: matrix products, convolutions and copies."""

import platform
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from typing import Any

import cv2
import numpy as np
import torch

from util.distributed import describe
from util.extra.parallel import available_cores

DTYPES = {"float32": torch.float32, "TF32": torch.float32, "bf16": torch.bfloat16}
DTYPES["fp16"] = torch.float16


def about(device: torch.device, command: str) -> dict[str, Any]:
    """Describe the machine and its software for the header of a table."""
    found: dict[str, Any] = {
        "machine": describe(device),
        "date": date.today().isoformat(),
        "command": command,
        "processor": f"{processor()}, {available_cores()} cores",
        "versions": f"Python {platform.python_version()}, torch {torch.__version__}, "
        f"NumPy {np.__version__}, OpenCV {cv2.__version__}",
    }
    if device.type == "cuda":
        found["GPU memory (GiB)"] = torch.cuda.get_device_properties(device).total_memory / 2**30
        found["CUDA"] = f"{torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"
    return found


def processor() -> str:
    """Return the processor's name, if the system reports it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.split(":")[1].strip() for line in file if line.startswith("model name")]
        return names[0]
    except (OSError, IndexError):
        return platform.processor() or platform.machine()


@contextmanager
def arithmetic(kind: str, *, benchmark: bool = False) -> Iterator[None]:
    """Enable TF32 for every kind but `float32`, and optionally cudnn.benchmark."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, matmul.allow_tf32, cudnn.benchmark
    cudnn.allow_tf32 = matmul.allow_tf32 = kind != "float32"
    cudnn.benchmark = benchmark
    try:
        yield
    finally:
        cudnn.allow_tf32, matmul.allow_tf32, cudnn.benchmark = before


def wait(device: torch.device) -> None:
    """Synchronise with the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_of(
    work: Callable[[], Any], device: torch.device, *, repeats: int = 10, warm_up: int = 2
) -> list[float]:
    """Measure the seconds of each call of `work` on the device."""
    for _ in range(warm_up):
        work()
    found = []
    for _ in range(repeats):
        wait(device)
        start = time.perf_counter()
        work()
        wait(device)
        found.append(time.perf_counter() - start)
    return found


def product_rate(kind: str, device: torch.device, *, side: int = 8192) -> float:
    """Measure TFLOP/s of a square matrix product of random numbers."""
    a, b = (torch.randn(side, side, device=device).to(DTYPES[kind]) for _ in range(2))
    with arithmetic(kind):
        return 2 * side**3 / statistics.median(seconds_of(lambda: a @ b, device)) / 1e12


def convolution_rate(kind: str, device: torch.device, *, side: int = 60, batch: int = 16) -> float:
    """Measure TFLOP/s of a 3x3 convolution with 512 channels, as in the last stage of ResNet50."""
    channels = 512
    layout = torch.channels_last
    x = torch.randn(batch, channels, side, side, device=device).to(
        DTYPES[kind], memory_format=layout
    )
    conv = torch.nn.Conv2d(channels, channels, 3, padding=2, dilation=2, bias=False)
    conv = conv.to(  # type: ignore[call-overload]
        device, DTYPES[kind], memory_format=layout
    )
    flop = 2 * batch * side**2 * channels**2 * 9
    with arithmetic(kind, benchmark=True), torch.no_grad():
        return flop / statistics.median(seconds_of(lambda: conv(x), device)) / 1e12


def copy_rate(device: torch.device, *, size: int = 2**30) -> float:
    """Measure GB/s of a copy within the device's memory, counting reads and writes."""
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * size / statistics.median(seconds_of(lambda: target.copy_(source), device)) / 1e9


def upload_rate(device: torch.device, *, size: int = 2**28) -> float:
    """Measure GB/s from pinned host memory to the device."""
    source = torch.ones(size, dtype=torch.uint8).pin_memory()
    target = torch.empty(size, dtype=torch.uint8, device=device)
    work = lambda: target.copy_(source, non_blocking=True)  # noqa: E731
    return size / statistics.median(seconds_of(work, device)) / 1e9
