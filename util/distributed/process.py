"""A process of the run and its collectives, which also work in a single process."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from util.distributed.sync_bn import synchronise_batch_norm

T = TypeVar("T")


@dataclass(frozen=True)
class Process:
    """One process of `world_size`, computing on `device`; `store` is shared by all of them."""

    rank: int = 0
    world_size: int = 1
    device: torch.device = torch.device("cpu")
    store: dist.Store | None = field(default=None, repr=False)

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and logs."""
        return self.rank == 0

    @property
    def reads_are_free(self) -> bool:
        """Whether reading a tensor's value needs no device synchronisation."""
        return self.device.type == "cpu"

    def wrap(
        self, model: nn.Module, *, sync_bn: bool, channels_last: bool, compile: bool = False
    ) -> nn.Module:
        """Move the model to the device and wrap it for distributed training.

        Compiled last, so that the compiler sees SyncBatchNorm and the gradient buckets.
        """
        layout = torch.channels_last if channels_last else torch.contiguous_format
        model = model.to(self.device, memory_format=layout)  # type: ignore[call-overload]
        if self.world_size > 1:
            on_gpu = self.device.type == "cuda"
            if sync_bn:
                model = synchronise_batch_norm(model, on_gpu=on_gpu)
            model = nn.parallel.DistributedDataParallel(
                model,
                device_ids=[self.device] if on_gpu else None,
                gradient_as_bucket_view=True,
            )
            # SyncBatchNorm keeps the statistics equal. (The argument was renamed in torch 2.14.)
            model.broadcast_buffers = not sync_bn
        if compile:
            model.compile()
        return model

    def broadcast_buffers(self, model: nn.Module) -> None:
        """Copy the main process's buffers, such as running statistics, to all others."""
        if self.world_size > 1:
            for buffer in model.buffers():
                dist.broadcast(buffer, 0)

    def barrier(self) -> None:
        """Wait for all processes."""
        if self.world_size > 1:
            dist.barrier()

    def all_reduce(self, tensor: Tensor) -> Tensor:
        """Sum a tensor over all processes, in place."""
        if self.world_size > 1:
            dist.all_reduce(tensor)
        return tensor

    def all_gather(self, tensor: Tensor) -> Tensor:
        """Concatenate the tensors of all processes, which have the same shape, along dim 0."""
        if self.world_size == 1:
            return tensor
        parts = [torch.empty_like(tensor) for _ in range(self.world_size)]
        dist.all_gather(parts, tensor.contiguous())
        return torch.cat(parts)

    def all_gather_object(self, value: T) -> list[T]:
        """Gather a picklable value from every process, ordered by rank. Slow: not for each step."""
        values = [value] * self.world_size
        if self.world_size > 1:
            dist.all_gather_object(values, value)
        return values

    def broadcast(self, value: T) -> T:
        """Return rank 0's value in all processes."""
        values = [value]
        if self.world_size > 1:
            dist.broadcast_object_list(values, device=self.device)
        return values[0]

    def any_rank(self, flag: bool) -> bool:
        """Whether the flag is set in any process. A collective: call at the same step in all."""
        if self.world_size == 1:
            return flag
        return bool(self.all_reduce(torch.tensor(int(flag), device=self.device)).item())

    def shared_indices(self, count: int, *, name: str) -> Iterator[int]:
        """Distribute 0 to count - 1 dynamically: whichever process is free takes the next number.

        Each `name` can be used once per run.
        """
        if self.store is None:
            yield from range(count)
            return
        while (number := self.store.add(f"shared/{name}", 1) - 1) < count:
            yield number


def unwrap(model: nn.Module) -> Any:
    """Return the network inside DistributedDataParallel, or the model itself."""
    return model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model
