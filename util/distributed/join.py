"""One process of several: joins the process group, runs the work and reports failures."""

import json
import logging
import multiprocessing
import os
import re
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import NoReturn

import torch
import torch.distributed as dist

from util.config import Config
from util.distributed.agent import POLL, inherited
from util.distributed.device import activate
from util.distributed.process import Process
from util.error import (
    EXIT_INTERRUPTED,
    EXIT_STOPPED,
    EXIT_USER_ERROR,
    ConfigError,
    Stopped,
    user_message,
)

Worker = Callable[[Process, Config], None]

# Gloo's errors have no exception type of their own, but start with the source location.
_GLOO = re.compile(r"\[\S*/gloo/|Application timeout caused pair closure")


def join(worker: Worker, cfg: Config, rank: int, world_size: int, device: torch.device) -> None:
    """Join the process group and run the worker. On an error, report it and exit at once."""
    if rank:
        logging.getLogger("semseg").setLevel(logging.ERROR)
    if "TORCHELASTIC_RUN_ID" in os.environ:
        threading.Thread(target=_watch_agent, daemon=True).start()
    code, store = 0, None
    try:
        store = _open_store(cfg, rank, world_size)
        process = Process(rank, world_size, activate(device), store)
        _init_group(cfg, process)
        try:
            worker(process, cfg)
        except SystemExit as stop:
            if isinstance(stop, Stopped) or stop.code != EXIT_STOPPED:
                raise
            code = EXIT_STOPPED
        dist.barrier()  # rank 0 may still be saving, and may host the store
        dist.destroy_process_group()
    except SystemExit as stop:
        _exit_now(stop.code if isinstance(stop.code, int) else bool(stop.code))
    except BaseException as error:
        _exit_now(_report(error, rank, store, timeout_minutes=cfg.timeout_minutes))
    if code:
        sys.exit(code)


def _open_store(cfg: Config, rank: int, world_size: int) -> dist.Store:
    """Open the store at the address given by torchrun's environment variables."""
    try:
        found = dist.rendezvous("env://", timeout=timedelta(minutes=cfg.timeout_minutes))
        # torchrun keeps its store across restarts: use a new prefix for each attempt.
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        return dist.PrefixStore(f"attempt {attempt}", next(iter(found))[0])
    except RuntimeError as error:
        address = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise ConfigError(
            f"{world_size} processes should meet at {address} within {cfg.timeout_minutes:g} "
            f"minutes (Distributed.timeout_minutes), rank {rank} did not: {_first_line(error)}"
        ) from None


def _init_group(cfg: Config, process: Process) -> None:
    assert process.store is not None
    device, backend = process.device, "gloo"
    if device.type == "cuda":
        backend, gpu = cfg.dist_backend, torch.cuda.get_device_properties(device)
        if process.store.add(f"gpu/{gpu.uuid}", 1) > 1:
            raise ConfigError(
                f"two processes would share one GPU ({device}, {gpu.name}): start as many "
                f"processes on a machine as it has GPUs, {torch.cuda.device_count()} here"
            )
    dist.init_process_group(
        backend,
        store=dist.PrefixStore("group", process.store),
        rank=process.rank,
        world_size=process.world_size,
        timeout=timedelta(minutes=cfg.timeout_minutes),
        device_id=device if backend == "nccl" else None,
    )


def _watch_agent() -> None:
    """Exit when the agent exits, for whatever reason, and act on signals it forwards."""
    agent = inherited()
    parent, stop_file = agent.get("pid", os.getppid()), Path(agent.get("stop_file", os.devnull))
    while os.getppid() == parent:
        if stop_file.exists() and (name := stop_file.read_text()):
            stop_file = Path(os.devnull)
            os.kill(os.getpid(), getattr(signal, name))
        time.sleep(POLL)
    if os.environ.get("LOCAL_RANK") == "0":
        what = f"the launcher (process {parent} on {socket.gethostname()}) died"
        print(f"error: {what}: stopping all processes", file=sys.stderr)
    else:  # exit after the first process, which would otherwise only see a lost peer
        time.sleep(4 * POLL)
    _exit_now(1)


def _exit_now(code: int) -> NoReturn:
    """Exit at once: an orderly exit would wait for the other processes."""
    for loader in multiprocessing.active_children():
        loader.kill()  # loader workers ignore SIGTERM
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


# Errors -------------------------------------------------------------------------------------------


def _report(
    error: BaseException, rank: int, store: dist.Store | None, *, timeout_minutes: float
) -> int:
    """Print why this process exits, once per machine; tell the agent; return the exit code."""
    kind, code, reason = "cause", EXIT_USER_ERROR, user_message(error)
    if is_of_peers(error):  # another process exited or hangs; the agent finds out which
        kind, code, reason = "lost", 1, f"lost another process ({_first_line(error)})"
        if "imed out" in str(error) or "timeout" in str(error):
            limit = f"{timeout_minutes:g} minutes (Distributed.timeout_minutes)"
            kind = "waited"
            reason = f"waited {limit} for other processes, which hang or are far behind"
    elif isinstance(error, KeyboardInterrupt):
        kind, code, reason = "interrupted", EXIT_INTERRUPTED, "interrupted"
    elif reason is None:
        code, reason = 1, "".join(traceback.format_exception(error)).rstrip()
    host = socket.gethostname()
    sentence = f"rank {rank} on {host}: {reason}"
    has_agent = _write_error_file(kind, sentence)
    if (kind == "cause" or not has_agent) and _is_first_report(store, host):
        print(f"error: {sentence}", file=sys.stderr, flush=True)
    return code


def is_of_peers(error: BaseException) -> bool:
    """Whether an error comes from a collective or the store, not from this process's own work."""
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and _GLOO.match(str(error)) is not None
    )


def _write_error_file(kind: str, sentence: str) -> bool:
    """Write the elastic agent's error file, which torchrun shows; return False without an agent."""
    path = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if not path:
        return False
    more = {"py_callstack": sentence, "timestamp": str(int(time.time())), "kind": kind}
    part = Path(f"{path}.part")
    try:
        part.write_text(json.dumps({"message": {"message": sentence, "extraInfo": more}}))
        part.replace(path)
    except OSError:  # a full disk
        return False
    return True


def _is_first_report(store: dist.Store | None, host: str) -> bool:
    """Whether this is the first process on this machine to report; True if the store is gone."""
    try:
        return store is None or store.add(f"error/{host}", 1) == 1
    except RuntimeError:
        return True


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
