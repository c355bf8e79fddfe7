"""The cost of a step: FLOPs, memory, and profiling."""

import json
import logging
from pathlib import Path

import pytest
import torch
from torch import nn

from model.segmentor import SegOutput
from util.training.profile import STEPS_BEFORE, StepProfiler, flops_per_image, peak_memory

CPU = torch.device("cpu")


class Net(nn.Module):
    """One 1x1 convolution for each head."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 1, bias=False)

    def forward(self, x: torch.Tensor) -> SegOutput:
        return SegOutput(self.conv(x), self.conv(x))


def test_flops_are_those_of_forward_and_backward() -> None:
    network = Net()
    products = 9 * 17 * 3 * 5 * 2  # for both heads
    assert flops_per_image(network, (9, 17)) == 3 * 2 * products
    assert network.conv.weight.device == CPU and network.training


def test_a_network_that_needs_values_is_trained_without_a_count() -> None:
    class Odd(Net):
        def forward(self, x: torch.Tensor) -> SegOutput:
            return super().forward(x * float(x.sum()))

    assert flops_per_image(Odd(), (9, 17)) == 0


def test_memory_is_known_here() -> None:
    assert 2**20 < peak_memory(CPU) < 2**40


@pytest.mark.parametrize("steps", [3, 99])
def test_a_profile_is_a_trace_and_the_costliest_operators(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, steps: int
) -> None:
    """Also if the run ends earlier."""
    profiler = StepProfiler(steps, str(tmp_path), CPU)
    with caplog.at_level(logging.INFO):
        for _ in range(STEPS_BEFORE + 4):
            torch.zeros(300, 300) @ torch.zeros(300, 300)
            profiler.step()
        profiler.close()
    (path,) = tmp_path.glob("profile-*.json")
    found = json.loads(path.read_text())["traceEvents"]
    done = min(steps, 4)
    assert sum(event["name"] == "aten::mm" for event in found) == done
    assert f"profile of {done} steps: {path}" in caplog.messages[0]
    (line,) = [text for text in caplog.messages if text.endswith("aten::mm")]
    assert " 1 calls" in line and "%" in line and "ms per step" in line


def test_a_run_too_short_to_profile_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    profiler = StepProfiler(1, str(tmp_path), CPU)
    profiler.step()
    profiler.close()
    assert "this run was shorter" in caplog.text and not list(tmp_path.iterdir())
