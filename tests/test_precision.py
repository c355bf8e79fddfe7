"""Mixed precision is used where it is native, and its absence is said."""

import pytest
import torch

from util.distributed.precision import autocast, usable_amp

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("kind", "abilities", "wanted"),
    [
        ("off", {}, "off"),
        ("bf16", {"amx_bf16": True}, "bf16"),
        ("bf16", {"avx512_bf16": True}, "bf16"),
        ("bf16", {"avx2": True, "amx_bf16": False}, "off"),
        ("fp16", {"amx_bf16": True}, "off"),
    ],
)
def test_a_cpu_without_the_arithmetic_computes_in_float32(
    monkeypatch: pytest.MonkeyPatch, kind: str, abilities: dict, wanted: str
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: abilities, raising=False)
    said: list[str] = []
    assert usable_amp(kind, CPU, say=said.append) == wanted
    assert len(said) == (kind != wanted)
    assert all(f"no {kind} arithmetic" in text for text in said)


def test_autocast_changes_nothing_when_off() -> None:
    x = torch.randn(8, 8)
    with autocast(CPU, "off"):
        assert (x @ x).dtype == torch.float32
    with autocast(CPU, "bf16"):
        assert (x @ x).dtype == torch.bfloat16
