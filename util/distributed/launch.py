"""Launching: in this process, by PyTorch's elastic agent, by torchrun or by SLURM."""

import logging
import os
from collections.abc import Sequence
from urllib.parse import urlsplit

import torch

from util.config import Config
from util.distributed.agent import Nodes, inherited, run_agent
from util.distributed.device import activate, list_devices
from util.distributed.join import Worker, join
from util.distributed.process import Process
from util.error import ConfigError

log = logging.getLogger("semseg")

# torchrun sets all of these; if only some are set, they belong to another launcher.
_TORCHRUN = {"RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}


def launch(worker: Worker, cfg: Config, *, gpus: Sequence[int]) -> None:
    """Call worker(process, cfg) once per process, on the listed GPUs that exist or on CPUs.

    A single device runs in the current process. For several, PyTorch's elastic agent runs this
    command once per device, on each srun node or each of Distributed.world_size machines. If
    torchrun or srun already started one process per device, this process joins them.
    """
    step = _srun_step()
    if step and step["STEP_NUM_TASKS"] != step["STEP_NUM_NODES"]:
        _set_torchrun_variables(step)
    if set(os.environ) >= _TORCHRUN:
        rank, world_size, local_rank = _torchrun_numbers()
        device = _local_device(local_rank, gpus, is_main=rank == 0)
        join(worker, cfg, rank, world_size, device)
        return
    if step and torch.cuda.is_available():
        gpus = _chosen_by_launcher(gpus, range(torch.cuda.device_count()))
    devices = list_devices(gpus)
    if devices[0].type == "cpu":
        devices *= cfg.num_processes
    if not cfg.multiprocessing_distributed and len(devices) > 1:
        devices = devices[:1]
        log.info(f"Distributed.multiprocessing_distributed is False: one process, {devices[0]}")
    nodes = _srun_nodes(step) if step else _listed_nodes(cfg)
    if len(devices) == nodes.count == 1:
        worker(Process(device=activate(devices[0])), cfg)
    else:
        run_agent(devices, nodes, timeout_minutes=cfg.timeout_minutes)


def _local_device(local_rank: int, gpus: Sequence[int], *, is_main: bool) -> torch.device:
    """Return the device of a process started by the agent, torchrun or srun."""
    if devices := inherited().get("devices"):
        return torch.device(devices[local_rank])
    if not torch.cuda.is_available():
        return torch.device("cpu")
    gpu = local_rank % torch.cuda.device_count()  # each task of srun may see a GPU of its own
    if is_main:
        _chosen_by_launcher(gpus, [gpu])
    return torch.device("cuda", gpu)


def _chosen_by_launcher(listed: Sequence[int], chosen: Sequence[int]) -> Sequence[int]:
    if list(listed) != list(chosen):
        log.info(f"torchrun or srun chooses the GPUs ({list(chosen)} here): {listed} is not used")
    return chosen


# Finding the other machines -----------------------------------------------------------------------


def _torchrun_numbers() -> tuple[int, int, int]:
    """Read (rank, world size, local rank) from torchrun's environment variables."""
    world_size = _env_number("WORLD_SIZE", low=1)
    _env_number("MASTER_PORT", low=1)
    if not os.environ["MASTER_ADDR"].strip():
        raise ConfigError("the environment variable MASTER_ADDR is empty: torchrun sets it")
    return _env_number("RANK", high=world_size - 1), world_size, _env_number("LOCAL_RANK")


def _env_number(name: str, *, low: int = 0, high: int = 65535) -> int:
    text = os.environ[name].strip()
    if text.isdecimal() and len(text) < 6 and low <= int(text) <= high:
        return int(text)
    raise ConfigError(
        f"the environment variable {name} must be a whole number from {low} to {high}, got "
        f"{text[:40]!r}: torchrun sets it; unset {name} to start without torchrun"
    )


def _srun_step() -> dict[str, int] | None:
    """Read SLURM's step variables; None outside srun and in an interactive shell (srun --pty)."""
    names = ("JOB_ID", "STEP_NUM_TASKS", "STEP_NUM_NODES", "PROCID", "LOCALID")
    found = {name: os.environ.get(f"SLURM_{name}", "") for name in names}
    if "SLURM_PTY_PORT" in os.environ or not all(map(str.isdecimal, found.values())):
        return None
    return {name: int(value) for name, value in found.items()}


def _srun_nodes(step: dict[str, int]) -> Nodes:
    """Return the nodes of an srun step; if several, they meet where srun was called.

    The port is derived from the job id, so it is the same on all nodes.
    """
    host = os.environ.get("MASTER_ADDR")
    if not host and step["STEP_NUM_NODES"] == 1:
        host = "127.0.0.1"
    host = host or os.environ.get("SLURM_LAUNCH_NODE_IPADDR")
    if not host:
        raise ConfigError("SLURM_LAUNCH_NODE_IPADDR is not set: set MASTER_ADDR to the first node")
    is_set = os.environ.get("MASTER_PORT")
    port = _env_number("MASTER_PORT", low=1) if is_set else 20000 + step["JOB_ID"] % 20000
    return Nodes(step["STEP_NUM_TASKS"], step["PROCID"], host, port)


def _set_torchrun_variables(step: dict[str, int]) -> None:
    """Translate SLURM's variables to torchrun's if srun started several tasks per node."""
    tasks = _srun_nodes(step)
    values = (tasks.rank, step["LOCALID"], tasks.count, tasks.host, tasks.port)
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    os.environ.update(zip(names, map(str, values), strict=True))


def _listed_nodes(cfg: Config) -> Nodes:
    """Return the Distributed.world_size machines with rendezvous at dist_url."""
    if cfg.world_size == 1:
        return Nodes()
    if cfg.rank >= cfg.world_size:
        raise ConfigError(
            f"Distributed.rank must be less than world_size {cfg.world_size}, got {cfg.rank}: "
            "machines are numbered from 0"
        )
    try:
        url = urlsplit(cfg.dist_url)
        if url.scheme == "tcp" and url.hostname and url.port:
            return Nodes(cfg.world_size, cfg.rank, url.hostname, url.port)
    except ValueError:  # malformed port or IPv6 address
        pass
    raise ConfigError(
        f"Distributed.dist_url must be tcp://<address of the first node>:<port>, got {cfg.dist_url}"
    )
