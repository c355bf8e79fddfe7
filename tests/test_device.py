"""Choosing among listed GPUs, and mixed precision only where it is supported natively."""

import logging

import pytest
import torch

from util.distributed import single_device
from util.distributed.device import autocast, list_devices, usable_amp

CPU = torch.device("cpu")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch):
    """machine(gpus, mps=False): simulate a machine with that many CUDA GPUs, or with mps."""

    def pretend(gpus: int, *, mps: bool = False) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

    return pretend


@pytest.mark.parametrize(
    ("listed", "gpus", "mps", "wanted"),
    [
        ([0, 1, 2, 3], 4, False, ["cuda:0", "cuda:1", "cuda:2", "cuda:3"]),
        ([0, 1, 2, 3], 1, False, ["cuda:0"]),
        ([2], 4, False, ["cuda:2"]),
        ([1, 1], 4, False, ["cuda:1"]),
        ([6, 7], 2, False, ["cuda:0"]),
        ([0], 0, False, ["cpu"]),
        ([], 4, False, ["cpu"]),
        ([0, 1], 0, True, ["mps"]),
        ([], 0, True, ["cpu"]),
    ],
)
def test_listed_gpus_that_exist(
    machine, caplog: pytest.LogCaptureFixture, listed: list, gpus: int, mps: bool, wanted: list
) -> None:
    machine(gpus, mps=mps)
    with caplog.at_level(logging.INFO, "semseg"):
        found = [str(device) for device in list_devices(listed)]
    assert found == wanted
    is_as_listed = wanted == [f"cuda:{gpu}" for gpu in listed] or listed == []
    assert len(caplog.messages) == (not is_as_listed)
    assert all(f"{gpus} visible here: using" in text for text in caplog.messages)


def test_a_single_gpu_other_than_0_is_made_current(
    machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(4)
    current = []
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    assert single_device([2]) == torch.device("cuda:2") and current == [torch.device("cuda:2")]


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
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    kind: str,
    abilities: dict,
    wanted: str,
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: abilities, raising=False)
    with caplog.at_level(logging.INFO, "semseg"):
        assert usable_amp(kind, CPU) == wanted
    assert len(caplog.messages) == (kind != wanted)
    assert all(f"no {kind} arithmetic" in text for text in caplog.messages)


def test_autocast_changes_nothing_when_off() -> None:
    x = torch.randn(8, 8)
    with autocast(CPU, "off"):
        assert (x @ x).dtype == torch.float32
    with autocast(CPU, "bf16"):
        assert (x @ x).dtype == torch.bfloat16
