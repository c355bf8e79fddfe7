"""Choosing devices and the precision of matrix products and convolutions."""

import logging
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager

import torch

log = logging.getLogger("semseg")

# tf32 is not an autocast dtype: see gpu_flags in util/inference/network.py.
AMP_KINDS = {
    "off": torch.float32,
    "tf32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}


def list_devices(gpus: Sequence[int]) -> list[torch.device]:
    """Return the listed GPUs that exist, else Apple's GPU, else the CPU; log missing GPUs.

    GPUs are numbered within CUDA_VISIBLE_DEVICES.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    found = [gpu for gpu in dict.fromkeys(gpus) if gpu < count] or ([0] if gpus and count else [])
    devices = [torch.device("cuda", gpu) for gpu in found]
    if not devices and gpus and torch.backends.mps.is_available():
        devices = [torch.device("mps")]
    if found != list(gpus):
        where = f"GPU {found}" if found else "Apple's GPU" if devices else "the CPU"
        log.info(f"GPUs {list(gpus)} are listed, {count} visible here: using {where}")
    return devices or [torch.device("cpu")]


def single_device(gpus: Sequence[int]) -> torch.device:
    """Return the device of a single-process tool and make it current."""
    return activate(list_devices(gpus)[0])


def activate(device: torch.device) -> torch.device:
    """Make the device current, so that CUDA creates its context there, and return it."""
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return device


def describe(device: torch.device) -> str:
    """Name a device, such as `NVIDIA H200` or `CPU, 2 threads`."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {torch.get_num_threads()} threads" if device.type == "cpu" else "Apple GPU"


def warn_if_busy(device: torch.device) -> None:
    """Log a hint if other programs keep the CPU busy.

    The number of threads is not changed because the last digits of sums depend on it.
    """
    threads, cores = torch.get_num_threads(), os.cpu_count() or 1
    if device.type != "cpu" or threads == 1 or not hasattr(os, "getloadavg"):
        return
    load = os.getloadavg()[0]
    if load > 1.5 * cores:
        log.warning(
            f"this machine is busy (load {load:.1f}, {cores} cores), so {threads} threads wait for "
            "each other: OMP_NUM_THREADS=1 in the environment may be several times faster"
        )


def autocast(device: torch.device, kind: str) -> AbstractContextManager:
    """Return the autocast context for a forward pass; `kind` is a key of AMP_KINDS."""
    dtype = AMP_KINDS[kind]
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)


def usable_amp(kind: str, device: torch.device) -> str:
    """Return `kind`, or `off` with a message on a CPU that only emulates it (slowly)."""
    if kind == "off" or device.type != "cpu":
        return kind
    native = {"tf32": (), "bf16": ("amx_bf16", "avx512_bf16"), "fp16": ("amx_fp16",)}[kind]
    abilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    if any(abilities.get(name) for name in native):
        return kind
    log.info(
        f"this CPU has no {kind} arithmetic: using float32, which is faster, instead of {kind}"
    )
    return "off"
