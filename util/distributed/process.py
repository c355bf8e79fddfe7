"""One process among several: what it shares with the others."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from util.distributed.sync_bn import synchronise_batch_norm


@dataclass(frozen=True)
class Process:
    """One process among `world_size`, computing on `device`."""

    rank: int = 0
    world_size: int = 1
    device: torch.device = torch.device("cpu")

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and speaks."""
        return self.rank == 0

    def say(self, text: str) -> None:
        """Print a line, in the first process alone."""
        if self.is_main:
            print(text, flush=True)

    @property
    def reads_are_free(self) -> bool:
        """Whether the host may look at a tensor of the device without waiting for its work."""
        return self.device.type == "cpu"

    def wrap(self, model: nn.Module, *, sync_bn: bool, channels_last: bool) -> nn.Module:
        """The model on this device, its gradients (and BatchNorm statistics) shared with peers."""
        layout = torch.channels_last if channels_last else torch.contiguous_format
        model = model.to(self.device, memory_format=layout)
        if self.world_size == 1:
            return model
        on_gpu = self.device.type == "cuda"
        if sync_bn and on_gpu:
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        elif sync_bn:
            model = synchronise_batch_norm(model)
        ids = [self.device] if on_gpu else None
        return nn.parallel.DistributedDataParallel(model, device_ids=ids)

    def barrier(self) -> None:
        """Wait for all processes."""
        if self.world_size > 1:
            dist.barrier()

    def all_reduce(self, tensor: Tensor) -> Tensor:
        """The tensor added up over all processes, in place."""
        if self.world_size > 1:
            dist.all_reduce(tensor)
        return tensor

    def all_gather(self, tensor: Tensor) -> Tensor:
        """The tensors of all processes, of one shape, joined along dim 0."""
        if self.world_size == 1:
            return tensor
        parts = [torch.empty_like(tensor) for _ in range(self.world_size)]
        dist.all_gather(parts, tensor.contiguous())
        return torch.cat(parts)

    def all_gather_object(self, value: object) -> list:
        """What every process has, by rank, on all of them; for results, not for every step."""
        values = [value]
        if self.world_size > 1:
            values = [None] * self.world_size
            dist.all_gather_object(values, value)
        return values

    def shared_indices(self, count: int, *, name: str) -> Iterator[int]:
        """0 to count - 1, each number in one process only: whoever is free takes the next one, so
        that all end at about the same time. A `name` serves once in a run."""
        if self.world_size == 1:
            yield from range(count)
            return
        store = dist.PrefixStore("turns", dist.group.WORLD.get_group_store())
        while (number := store.add(name, 1) - 1) < count:
            yield number

    def any_rank(self, flag: bool) -> bool:
        """Whether the flag is set in any process. All of them must ask at the same step."""
        if self.world_size == 1:
            return flag
        return bool(self.all_reduce(torch.tensor(int(flag), device=self.device)).item())

    def broadcast(self, value: int) -> int:
        """The first process's value, on all of them."""
        values = [value]
        if self.world_size > 1:
            dist.broadcast_object_list(values, device=self.device)
        return values[0]


def unwrap(model: nn.Module) -> nn.Module:
    """The network itself, without what `Process.wrap` put around it."""
    return model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model
