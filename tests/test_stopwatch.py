"""Timing a network within a run, and removing the hooks afterwards."""

import time

import torch
from torch import nn

from util.extra.timer import Timer


class Slow(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        time.sleep(0.02)
        return x + 1


def test_the_time_of_a_network_is_part_of_the_whole() -> None:
    network = Slow()

    def work() -> float:
        time.sleep(0.03)
        return float(network(network(torch.zeros(1))))

    turn, result = Timer(network, torch.device("cpu")).time(work)
    assert result == 2
    assert 0.04 <= turn.network <= turn.seconds - 0.03
    assert not network._forward_hooks and not network._forward_pre_hooks
