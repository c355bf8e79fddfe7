"""One of several processes: it meets the others, works, and reports why it cannot continue."""

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

# Gloo's errors have no type of their own, but begin with the place in its source.
_GLOO = re.compile(r"\[\S*/gloo/|Application timeout caused pair closure")


def join(worker: Worker, cfg: Config, rank: int, world_size: int, device: torch.device) -> None:
    """Meet the others and work with them. An error is reported and ends this process at once."""
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
        dist.barrier()  # the first process may still be saving, and may keep the store
        dist.destroy_process_group()
    except SystemExit as stop:
        _end(stop.code if isinstance(stop.code, int) else bool(stop.code))
    except BaseException as error:
        _end(_report(error, rank, store, timeout_minutes=cfg.timeout_minutes))
    if code:
        sys.exit(code)


def _open_store(cfg: Config, rank: int, world_size: int) -> dist.Store:
    """Where all processes meet, as torchrun's variables say."""
    try:
        found = dist.rendezvous("env://", timeout=timedelta(minutes=cfg.timeout_minutes))
        # torchrun keeps its store when it starts all processes again: theirs must look new.
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
    """End when the agent does, however that came about, and pass on a signal that it got."""
    agent = inherited()
    parent, stop_file = agent.get("pid", os.getppid()), Path(agent.get("stop_file", os.devnull))
    while os.getppid() == parent:
        if stop_file.exists() and (name := stop_file.read_text()):
            stop_file = Path(os.devnull)
            os.kill(os.getpid(), getattr(signal, name))
        time.sleep(POLL)
    if os.environ.get("LOCAL_RANK") == "0":
        what = f"process {parent}, which started the others on {socket.gethostname()}, has ended"
        print(f"error: {what}: they end", file=sys.stderr)
    _end(1)


def _end(code: int) -> NoReturn:
    """Leave at once: an orderly end would wait for the other processes."""
    for loader in multiprocessing.active_children():
        loader.kill()  # deaf to SIGTERM
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


# Errors -------------------------------------------------------------------------------------------


def _report(
    error: BaseException, rank: int, store: dist.Store | None, *, timeout_minutes: float
) -> int:
    """Print why this process ends, once per machine, and tell the agent; returns the exit code."""
    kind, code, reason = "cause", EXIT_USER_ERROR, user_message(error)
    if is_of_peers(error):  # another process's end or silence; the agent finds out which
        kind, code, reason = "lost", 1, f"lost another process ({_first_line(error)})"
        if "imed out" in str(error) or "timeout" in str(error):
            limit = f"{timeout_minutes:g} minutes (Distributed.timeout_minutes)"
            kind, reason = "waited", f"waited {limit} for others, which hang or are far behind"
    elif isinstance(error, KeyboardInterrupt):
        kind, code, reason = "interrupted", EXIT_INTERRUPTED, "interrupted"
    elif reason is None:
        code, reason = 1, "".join(traceback.format_exception(error)).rstrip()
    host = socket.gethostname()
    sentence = f"rank {rank} on {host}: {reason}"
    has_agent = _tell_agent(kind, sentence)
    if (kind == "cause" or not has_agent) and _is_first(store, host):
        print(f"error: {sentence}", file=sys.stderr, flush=True)
    return code


def is_of_peers(error: BaseException) -> bool:
    """Whether an error comes from a collective or the store, not from work of this process."""
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and _GLOO.match(str(error)) is not None
    )


def _tell_agent(kind: str, sentence: str) -> bool:
    """Write the elastic agent's error file, which torchrun shows; False where there is none."""
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


def _is_first(store: dist.Store | None, host: str) -> bool:
    """Whether no process of this machine has reported yet; a store that is gone says yes."""
    try:
        return store is None or store.add(f"error/{host}", 1) == 1
    except RuntimeError:
        return True


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
