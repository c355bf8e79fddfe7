"""Who starts the processes of a run: this process, PyTorch's elastic agent, torchrun or SLURM."""

import logging
import os
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

import torch

from util.config import Config
from util.distributed.agent import Nodes, inherited, run_agent
from util.distributed.device import activate, list_devices
from util.distributed.join import Peers, Worker, join
from util.distributed.process import Process
from util.error import ConfigError

log = logging.getLogger("semseg")

# torchrun gives all of these; a part of them belongs to another launcher and does not concern us.
_TORCHRUN = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_SRUN = ("JOB_ID", "STEP_NUM_TASKS", "STEP_NUM_NODES", "PROCID", "LOCALID")


def launch(worker: Worker, cfg: Config, *, gpus: Sequence[int]) -> None:
    """Call worker(process, cfg) once per process, on the listed GPUs that exist or on CPUs.

    A single device runs in this process. Several are started by PyTorch's elastic agent, which
    runs this command once per device, on each of srun's nodes or of Distributed.world_size
    machines. Processes that torchrun, or srun with several tasks a node, has started join.
    """
    peers = _torchrun(os.environ) or _srun_tasks(os.environ)
    if peers:
        join(worker, cfg, peers, _local_device(peers, gpus))
        return
    nodes = _srun_nodes(os.environ)
    if nodes and torch.cuda.is_available():
        gpus = _chosen_by_launcher(gpus, range(torch.cuda.device_count()))
    nodes = nodes or _listed_nodes(cfg)
    devices = list_devices(gpus)
    if devices[0].type == "cpu":
        devices *= cfg.num_processes
    if not cfg.multiprocessing_distributed and len(devices) > 1:
        devices = devices[:1]
        log.info(f"Distributed.multiprocessing_distributed is False: one process, {devices[0]}")
    if len(devices) == nodes.count == 1:
        worker(Process(device=activate(devices[0])), cfg)
    else:
        run_agent(devices, nodes, timeout_minutes=cfg.timeout_minutes)


def _local_device(peers: Peers, gpus: Sequence[int]) -> torch.device:
    """The device of a process that was started by others."""
    if devices := inherited().get("devices"):
        return torch.device(devices[peers.local_rank])
    if not torch.cuda.is_available():
        return torch.device("cpu")
    gpu = peers.local_rank % torch.cuda.device_count()  # each task may see a GPU of its own
    if peers.rank == 0:
        _chosen_by_launcher(gpus, [gpu])
    return torch.device("cuda", gpu)


def _chosen_by_launcher(listed: Sequence[int], chosen: Sequence[int]) -> Sequence[int]:
    if list(listed) != list(chosen):
        log.info(f"torchrun or srun chooses the GPUs ({list(chosen)} here): {listed} is not used")
    return chosen


# Where the others are -----------------------------------------------------------------------------


def _torchrun(environment: Mapping[str, str]) -> Peers | None:
    """What torchrun's variables say."""
    if not set(_TORCHRUN) <= set(environment):
        return None
    world_size = _number(environment, "WORLD_SIZE", 1)
    rank = _number(environment, "RANK", 0, world_size - 1)
    if not environment["MASTER_ADDR"].strip():
        raise ConfigError("the environment variable MASTER_ADDR is empty: torchrun sets it")
    # torchrun keeps the store itself, unless it was asked not to.
    hosts_store = rank == 0 and environment.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    local_rank, port = (_number(environment, name) for name in ("LOCAL_RANK", "MASTER_PORT"))
    return Peers(rank, world_size, local_rank, environment["MASTER_ADDR"], port, hosts_store)


def _srun(environment: Mapping[str, str]) -> dict[str, int] | None:
    """The numbers of srun's step, None outside of one and in an interactive shell (srun --pty)."""
    found = {name: environment.get(f"SLURM_{name}", "") for name in _SRUN}
    if "SLURM_PTY_PORT" in environment or not all(value.isdecimal() for value in found.values()):
        return None
    return {name: int(value) for name, value in found.items()}


def _srun_tasks(environment: Mapping[str, str]) -> Peers | None:
    """The peers when srun has started several tasks a node: one process per task."""
    step = _srun(environment)
    if not step or step["STEP_NUM_TASKS"] == step["STEP_NUM_NODES"]:
        return None
    rank, tasks = step["PROCID"], step["STEP_NUM_TASKS"]
    address = _srun_address(environment, step["JOB_ID"])
    return Peers(rank, tasks, step["LOCALID"], *address, hosts_store=rank == 0)


def _srun_nodes(environment: Mapping[str, str]) -> Nodes | None:
    """The nodes when srun has started one task on each."""
    step = _srun(environment)
    if not step:
        return None
    address = _srun_address(environment, step["JOB_ID"])
    return Nodes(step["STEP_NUM_TASKS"], step["PROCID"], *address)


def _srun_address(environment: Mapping[str, str], job: int) -> tuple[str, int]:
    """The node where srun runs; the port is a function of the job, the same on all nodes."""
    host = environment.get("MASTER_ADDR") or environment.get("SLURM_LAUNCH_NODE_IPADDR")
    if not host:
        raise ConfigError("SLURM_LAUNCH_NODE_IPADDR is not set: set MASTER_ADDR to the first node")
    if environment.get("MASTER_PORT"):
        return host, _number(environment, "MASTER_PORT")
    return host, 20000 + job % 20000


def _listed_nodes(cfg: Config) -> Nodes:
    """Distributed.world_size machines that meet at dist_url; one, where it says nothing else."""
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
    except ValueError:  # a port that is none, half an IPv6 address
        pass
    raise ConfigError(
        f"Distributed.dist_url must be tcp://<address of the first node>:<port>, got {cfg.dist_url}"
    )


def _number(environment: Mapping[str, str], name: str, low: int = 0, high: int = 65535) -> int:
    text = environment[name].strip()
    if text.isdecimal() and low <= int(text) <= high:
        return int(text)
    raise ConfigError(
        f"the environment variable {name} must be a whole number from {low} to {high}, got "
        f"{text[:40]!r}: torchrun sets it; unset {name} to start without torchrun"
    )
