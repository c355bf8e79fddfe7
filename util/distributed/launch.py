"""How the processes of a run are started: in place, by spawn, by torchrun or by SLURM."""

import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing import connection
from urllib.parse import urlsplit

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from util.config import Config
from util.distributed.device import list_devices, local_device
from util.distributed.process import Process
from util.distributed.signals import Forwarder, shield_tracker
from util.distributed.watch import Failure, Watch
from util.error import EXIT_INTERRUPTED, EXIT_STOPPED, ConfigError, run_cli

Worker = Callable[[Process, Config], None]

GRACE = 10.0  # seconds that processes get to end by themselves when another one has failed


@dataclass(frozen=True)
class Peers:
    """Where a process finds the others: its rank among `world_size`, and the meeting address.

    `hosts_store`: whether this process keeps the store at that address.
    """

    rank: int
    world_size: int
    host: str
    port: int
    hosts_store: bool


def launch(worker: Worker, cfg: Config, *, gpus: Sequence[int]) -> None:
    """Call worker(process, cfg) once per process, on the listed GPUs that exist or on CPUs.

    torchrun and srun with several tasks a node have started the processes already. Else each
    machine (srun's, or Distributed.world_size of them) starts one per GPU; a lonely one runs here.
    """
    joined = _torchrun(os.environ) or _slurm_tasks(os.environ)
    if joined:
        peers, local_rank = joined
        run_cli(lambda: _join(worker, cfg, local_device(local_rank), peers))
        return
    slurm = _slurm_nodes(os.environ)
    if slurm:  # the GPUs are those that SLURM grants, whatever the config lists
        gpus = range(torch.cuda.device_count()) or gpus
    devices = list_devices(gpus)
    if devices[0].type == "cpu":
        devices *= cfg.num_processes
    nodes, node, meeting = slurm or (cfg.world_size, cfg.rank, cfg.dist_url)
    if len(devices) == nodes == 1:
        worker(Process(device=devices[0]), cfg)
        return
    _spawn(worker, cfg, devices, nodes=nodes, node=node, meeting=meeting)


# Started by others --------------------------------------------------------------------------------


def _torchrun(environment: Mapping[str, str]) -> tuple[Peers, int] | None:
    """The peers and the local rank that torchrun's variables name."""
    if not {"RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= set(environment):
        return None
    rank = int(environment["RANK"])
    peers = Peers(
        rank,
        int(environment["WORLD_SIZE"]),
        environment["MASTER_ADDR"],
        int(environment["MASTER_PORT"]),
        # torchrun keeps the store itself, unless it was asked not to.
        hosts_store=rank == 0 and environment.get("TORCHELASTIC_USE_AGENT_STORE") != "True",
    )
    return peers, int(environment["LOCAL_RANK"])


def _slurm_tasks(environment: Mapping[str, str]) -> tuple[Peers, int] | None:
    """The same for srun with several tasks a node: one process per task."""
    tasks = int(environment.get("SLURM_STEP_NUM_TASKS", 1))
    if tasks == int(environment.get("SLURM_STEP_NUM_NODES", 1)):
        return None
    meeting = urlsplit(_slurm_meeting(environment))
    rank = int(environment["SLURM_PROCID"])
    peers = Peers(rank, tasks, str(meeting.hostname), meeting.port or 0, hosts_store=rank == 0)
    return peers, int(environment["SLURM_LOCALID"])


def _slurm_nodes(environment: Mapping[str, str]) -> tuple[int, int, str] | None:
    """(nodes, number of this one, meeting address) for srun with one task a node."""
    if "SLURM_STEP_NUM_TASKS" not in environment:
        return None
    nodes = int(environment["SLURM_STEP_NUM_TASKS"])
    return nodes, int(environment["SLURM_PROCID"]), _slurm_meeting(environment)


def _slurm_meeting(environment: Mapping[str, str]) -> str:
    """The first node of the job; the port is a function of the job, the same on all nodes."""
    host = environment.get("MASTER_ADDR") or environment["SLURM_LAUNCH_NODE_IPADDR"]
    job = int(environment["SLURM_JOB_ID"])
    return f"tcp://{host}:{environment.get('MASTER_PORT') or 20000 + job % 20000}"


# Started here -------------------------------------------------------------------------------------


def _spawn(
    worker: Worker,
    cfg: Config,
    devices: Sequence[torch.device],
    *,
    nodes: int,
    node: int,
    meeting: str,
) -> None:
    """One process per device of this machine, and watch over them."""
    address = urlsplit(meeting)
    if nodes > 1 and (address.scheme != "tcp" or not address.hostname or not address.port):
        raise ConfigError(
            f"Distributed.dist_url must be tcp://<address of the first node>:<port>, got {meeting}"
        )
    # On one machine the system picks a free port, and the store holds it from then on.
    host, port = (str(address.hostname), address.port or 0) if nodes > 1 else ("127.0.0.1", 0)
    store = _store(host, port, is_host=node == 0)
    world_size = nodes * len(devices)
    first = node * len(devices)
    here = f", of them ranks {first} to {first + len(devices) - 1}" if nodes > 1 else ""
    print(f"{world_size} processes{here} here, meeting at {host}:{store.port}", flush=True)
    if devices[0].type == "cpu":  # else each of them would take all cores
        cores = len(os.sched_getaffinity(0)) // len(devices)
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores)))
    # A process that ends at once, for the loss of another, leaves semaphores to Python's tracker,
    # which frees them, but not without a word.
    os.environ.setdefault("PYTHONWARNINGS", "ignore:resource_tracker")
    peers = [
        Peers(first + i, world_size, host, store.port, hosts_store=False)
        for i in range(len(devices))
    ]
    shield_tracker()
    context = mp.start_processes(
        _child, (worker, cfg, devices, peers), nprocs=len(devices), join=False
    )
    try:
        with Forwarder(context.pids()):
            _announce_killed(context, Failure(_part(store, "watch")), first)
            while not context.join(grace_period=GRACE):
                pass
    except mp.ProcessExitedException as error:
        sys.exit(error.exit_code if error.exit_code > 0 else 1)
    except KeyboardInterrupt:  # the processes have had it, too; they still need the store
        for process in context.processes:
            process.join(GRACE)
        sys.exit(EXIT_INTERRUPTED)


def _announce_killed(context: mp.ProcessContext, failure: Failure, first: int) -> None:
    """Wait until a process fails or all have ended; one that was killed cannot speak for itself."""
    while True:
        codes = [process.exitcode for process in context.processes]
        for i, code in enumerate(codes):
            if code and code < 0:
                name = signal.Signals(-code).name
                hint = "; often that is for want of memory" if name == "SIGKILL" else ""
                place = f"rank {first + i} on {socket.gethostname()}"
                failure.announce(f"error: {place} was killed by {name}{hint}", 1)
        if any(codes) or None not in codes:
            return
        # A sentinel may be ready a moment before its exit code: the next round has that, too.
        pairs = zip(context.processes, codes, strict=True)
        connection.wait([process.sentinel for process, code in pairs if code is None])


def _child(
    index: int,
    worker: Worker,
    cfg: Config,
    devices: Sequence[torch.device],
    peers: Sequence[Peers],
) -> None:
    run_cli(lambda: _join(worker, cfg, devices[index], peers[index]))


def _store(host: str, port: int, *, is_host: bool) -> dist.TCPStore:
    """The store where all processes meet."""
    try:
        return dist.TCPStore(host, port, is_master=is_host, wait_for_workers=False)
    except (dist.DistError, RuntimeError) as error:
        what = "be opened" if is_host else "be reached"
        raise ConfigError(
            f"the meeting address {host}:{port} cannot {what} "
            f"({str(error).strip().splitlines()[0]}): choose another Distributed.dist_url, with "
            "the first node's address and a free port"
        ) from None


def _part(store: dist.Store, name: str) -> dist.PrefixStore:
    """A part of the store; torchrun keeps its own when it starts all processes again."""
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return dist.PrefixStore(f"{name}/{attempt}", store)


def _join(worker: Worker, cfg: Config, device: torch.device, peers: Peers) -> None:
    """Meet the others and work with them; when that fails, see that all end."""
    backend = cfg.dist_backend
    if device.type == "cuda":
        torch.cuda.set_device(device)
    else:
        backend = "gloo"
    store = _store(peers.host, peers.port, is_host=peers.hosts_store)
    watch = Watch(_part(store.clone(), "watch"), peers.rank, peers.world_size)
    try:
        dist.init_process_group(
            backend,
            store=_part(store, "group"),
            rank=peers.rank,
            world_size=peers.world_size,
            timeout=timedelta(minutes=cfg.timeout_minutes),
        )
    except (dist.DistError, RuntimeError) as error:
        raise ConfigError(
            f"{peers.world_size} processes should meet at {peers.host}:{peers.port} within "
            f"{cfg.timeout_minutes:g} minutes, but did not ({str(error).strip().splitlines()[0]}): "
            "start the same command on all nodes, each with its own Distributed.rank"
        ) from None
    watch.start()
    try:
        worker(Process(peers.rank, peers.world_size, device), cfg)
        dist.barrier()  # the store must outlive all who watch it
    except SystemExit as stop:
        if stop.code != EXIT_STOPPED:
            raise
        dist.barrier()
        watch.close()
        raise
    except (Exception, KeyboardInterrupt) as error:
        code = watch.fail(error, timeout_minutes=cfg.timeout_minutes)
        sys.stdout.flush()
        os._exit(code)  # an orderly end would wait for the others
    watch.close()
    dist.destroy_process_group()
