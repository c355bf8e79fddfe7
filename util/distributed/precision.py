"""Mixed precision in one place: float32, or bf16 / fp16 inside matrix products and convolutions."""

from collections.abc import Callable
from contextlib import AbstractContextManager

import torch

AMP_KINDS = {"off": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(device: torch.device, kind: str) -> AbstractContextManager:
    """The context for a forward pass; `kind` is a key of AMP_KINDS, `off` changes nothing."""
    return torch.autocast(device.type, AMP_KINDS[kind], enabled=kind != "off")


def usable_amp(kind: str, device: torch.device, *, say: Callable[[str], None]) -> str:
    """`kind`, or `off` with a word where a CPU would only imitate it and be slower than float32."""
    if kind == "off" or device.type != "cpu":
        return kind
    native = {"bf16": ("amx_bf16", "avx512_bf16"), "fp16": ("amx_fp16",)}[kind]
    abilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    if any(abilities.get(name) for name in native):
        return kind
    say(f"this CPU has no {kind} arithmetic: amp {kind} is not used, float32 is faster here")
    return "off"
