"""Where a process runs: its rank, its device, its peers. Rank and device live here."""

import os
import random
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

from util.error import ConfigError, run_cli


@dataclass(frozen=True)
class Runtime:
    """One process among `world_size`, computing on `device`."""

    rank: int = 0
    world_size: int = 1
    device: torch.device = torch.device("cpu")

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and speaks."""
        return self.rank == 0

    def wrap(self, model: nn.Module, *, sync_bn: bool, channels_last: bool) -> nn.Module:
        """The model on this device, its gradients (and BatchNorm statistics) shared with peers."""
        layout = torch.channels_last if channels_last else torch.contiguous_format
        model = model.to(self.device, memory_format=layout)
        if self.world_size == 1:
            return model
        if sync_bn and self.device.type == "cpu":
            raise ConfigError(
                f"TRAIN.sync_bn True needs GPUs (PyTorch has no such BatchNorm on the CPU), but "
                f"{self.world_size} processes run on CPUs: set TRAIN.sync_bn False"
            )
        if sync_bn:
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        ids = [self.device] if self.device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(model, device_ids=ids)

    def sum(self, tensor: Tensor) -> Tensor:
        """The tensor added up over all processes, in place."""
        if self.world_size > 1:
            dist.all_reduce(tensor)
        return tensor

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process. All of them must ask at the same step."""
        if self.world_size == 1:
            return flag
        return bool(self.sum(torch.tensor(int(flag), device=self.device)).item())

    def from_first(self, value: int) -> int:
        """The first process's value, on all of them."""
        values = [value]
        if self.world_size > 1:
            dist.broadcast_object_list(values, device=self.device)
        return values[0]


def unwrap(model: nn.Module) -> nn.Module:
    """The network itself, without what `Runtime.wrap` put around it."""
    return model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model


def launch(
    worker: Callable[..., None],
    args: tuple,
    *,
    gpus: Sequence[int],
    nodes: int,
    node_rank: int,
    dist_url: str,
    backend: str,
    say: Callable[[str], None],
) -> None:
    """Call worker(runtime, *args) once per process.

    Started by torchrun: this process is one of many. Else one process per listed GPU that is
    visible, on each of `nodes` machines that meet at `dist_url`; a lonely one runs right here.
    """
    if "LOCAL_RANK" in os.environ and "WORLD_SIZE" in os.environ:
        _join(worker, args, local_device(int(os.environ["LOCAL_RANK"])), backend)
        return
    devices = [torch.device("cuda", gpu) for gpu in visible_gpus(gpus, say=say)]
    devices = devices or [torch.device("cpu")]
    if len(devices) == nodes == 1:
        worker(Runtime(device=devices[0]), *args)
        return
    meeting = urlsplit(dist_url if nodes > 1 else f"tcp://127.0.0.1:{free_port()}")
    if meeting.scheme != "tcp" or not meeting.hostname or not meeting.port:
        raise ConfigError(
            f"Distributed.dist_url must be tcp://<address of the first node>:<port>, got {dist_url}"
        )
    os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = meeting.hostname, str(meeting.port)
    os.environ["WORLD_SIZE"] = str(nodes * len(devices))
    first_rank = node_rank * len(devices)
    try:
        mp.spawn(_spawned, (first_rank, devices, backend, worker, args), nprocs=len(devices))
    except mp.ProcessExitedException as error:
        sys.exit(error.exit_code if error.exit_code > 0 else 1)


def local_device(local_rank: int) -> torch.device:
    """The GPU of this process on its machine, or the CPU where there is none."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", local_rank % torch.cuda.device_count())


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


def _spawned(
    index: int,
    first_rank: int,
    devices: Sequence[torch.device],
    backend: str,
    worker: Callable[..., None],
    args: tuple,
) -> None:
    os.environ["RANK"] = str(first_rank + index)
    run_cli(lambda: _join(worker, args, devices[index], backend))


def _join(worker: Callable[..., None], args: tuple, device: torch.device, backend: str) -> None:
    """Meet the peers named by the environment and work with them."""
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group(backend if device.type == "cuda" else "gloo")
    try:
        worker(Runtime(dist.get_rank(), dist.get_world_size(), device), *args)
    finally:
        dist.destroy_process_group()


def free_port() -> int:
    """A TCP port that nobody listens on at this moment."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class StopRequest:
    """While entered, notes SIGTERM and SIGUSR1 in `name`; schedulers ask a run to end by them."""

    def __enter__(self) -> "StopRequest":
        self.name = ""
        self._before = {
            number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGUSR1)
        }
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: object) -> None:
        self.name = signal.Signals(number).name


def choose_seed() -> int:
    """A fresh seed."""
    return random.SystemRandom().randrange(2**31)


def seed_everything(seed: int) -> None:
    """Start Python's, NumPy's and torch's generators (all devices) from `seed`."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def rng_state() -> dict[str, Tensor]:
    """The state of torch's generators, which draw the dropout masks."""
    state = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_rng_state(state: dict[str, Tensor]) -> None:
    """Go on from a state that `rng_state` gave."""
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def describe(device: torch.device) -> str:
    """A device in words: `NVIDIA H200` or `CPU, 2 threads`."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {torch.get_num_threads()} threads"
