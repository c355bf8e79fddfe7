"""Train a small network for three steps with and without the compiler, for tests/test_trouble.py.

torchrun --nproc_per_node=2 tests/helpers/compiled.py BACKEND
"""

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from util.distributed import Process, unwrap


def weights(process: Process, *, compile: bool) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1))
    model = process.wrap(net, sync_bn=True, channels_last=False, compile=compile)
    optimizer = torch.optim.SGD(unwrap(model).parameters(), lr=0.1)
    torch.manual_seed(process.rank)
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.randn(2, 3, 9, 9)).square().mean().backward()
        optimizer.step()
    return unwrap(model).state_dict()


if __name__ == "__main__":
    dist.init_process_group("gloo")
    compile_module = nn.Module.compile
    nn.Module.compile = lambda self: compile_module(self, backend=sys.argv[1])
    process = Process(dist.get_rank(), dist.get_world_size())
    plain, compiled = (weights(process, compile=flag) for flag in (False, True))
    assert plain.keys() == compiled.keys()
    for name, value in plain.items():
        torch.testing.assert_close(compiled[name], value)
        dist.broadcast(value, 0)
        torch.testing.assert_close(compiled[name], value)
    dist.destroy_process_group()
