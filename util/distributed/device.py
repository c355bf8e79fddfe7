"""The devices of this machine: those that a config lists and that exist."""

from collections.abc import Callable, Sequence

import torch


def visible_gpus(listed: Sequence[int], *, say: Callable[[str], None]) -> list[int]:
    """The listed GPUs that exist here, numbered within CUDA_VISIBLE_DEVICES; says what differs."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    usable = [gpu for gpu in listed if gpu < count]
    if listed and count and not usable:
        usable = [0]
    if list(usable) != list(listed):
        what = f"using GPU {usable}" if usable else "running on the CPU"
        say(f"GPUs {list(listed)} are listed, {count} visible here: {what}")
    return usable


def main_device(gpus: Sequence[int]) -> torch.device:
    """The first of these GPUs, or the CPU when there is none."""
    return torch.device("cuda", gpus[0]) if gpus else torch.device("cpu")


def local_device(local_rank: int) -> torch.device:
    """The GPU of a process by its number on its machine, or the CPU where there is no GPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", local_rank % torch.cuda.device_count())


def describe(device: torch.device) -> str:
    """A device in words: `NVIDIA H200` or `CPU, 2 threads`."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {torch.get_num_threads()} threads"
