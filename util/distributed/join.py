"""One of several processes: it meets the others, works, and says why it cannot go on."""

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
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Peers:
    """A process's rank among `world_size`, its number on its machine, and where all meet.

    `hosts_store`: whether this process keeps the store at that address.
    """

    rank: int
    world_size: int
    local_rank: int
    host: str
    port: int
    hosts_store: bool


def join(worker: Worker, cfg: Config, peers: Peers, device: torch.device) -> None:
    """Meet the others and work with them. An error ends this process at once, reported."""
    if peers.rank:
        logging.getLogger("semseg").setLevel(logging.ERROR)
    if "TORCHELASTIC_RUN_ID" in os.environ:
        threading.Thread(target=_watch_agent, daemon=True).start()
    report = Report(peers, cfg.timeout_minutes)
    code = 0
    try:
        process = Process(peers.rank, peers.world_size, device, _meet(cfg, peers, device, report))
        try:
            worker(process, cfg)
        except SystemExit as stop:
            if isinstance(stop, Stopped) or stop.code != EXIT_STOPPED:
                raise
            code = EXIT_STOPPED
        dist.barrier()  # the first process is still saving, or keeps the store
        dist.destroy_process_group()
    except SystemExit as stop:
        _end(stop.code if isinstance(stop.code, int) else bool(stop.code))
    except BaseException as error:
        _end(report(error))
    if code:
        sys.exit(code)


def _meet(cfg: Config, peers: Peers, device: torch.device, report: "Report") -> dist.Store:
    """Open the store and the process group; returns the part of the store for our own keys."""
    activate(device)
    backend = cfg.dist_backend if device.type == "cuda" else "gloo"
    timeout = timedelta(minutes=cfg.timeout_minutes)
    try:
        store = dist.TCPStore(
            peers.host,
            peers.port,
            is_master=peers.hosts_store,
            timeout=timeout,
            wait_for_workers=False,
            multi_tenant=True,
        )
        # torchrun keeps its store when it starts all processes again.
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        report.store = store = dist.PrefixStore(f"semseg/{attempt}", store)
        if device.type == "cuda":
            gpu = torch.cuda.get_device_properties(device)
            if store.add(f"gpu/{gpu.uuid}", 1) > 1:
                raise ConfigError(
                    f"two processes would share one GPU ({device}, {gpu.name}): start as many "
                    f"processes on a machine as it has GPUs, {torch.cuda.device_count()} here"
                )
        dist.init_process_group(
            backend,
            store=dist.PrefixStore("group", store),
            rank=peers.rank,
            world_size=peers.world_size,
            timeout=timeout,
            device_id=device if backend == "nccl" else None,
        )
    except RuntimeError as error:
        raise ConfigError(
            f"{peers.world_size} processes should meet at {peers.host}:{peers.port} within "
            f"{cfg.timeout_minutes:g} minutes (Distributed.timeout_minutes), but did not: "
            f"{_first_line(error)}"
        ) from None
    return store


def _watch_agent() -> None:
    """End when the agent does, however that came about, and pass on a signal that it got."""
    agent = inherited()
    parent, stop_file = agent.get("pid", os.getppid()), Path(agent.get("stop_file", os.devnull))
    while os.getppid() == parent:
        if stop_file.exists() and (name := stop_file.read_text()):
            stop_file = Path(os.devnull)
            os.kill(os.getpid(), getattr(signal, name))
        time.sleep(POLL)
    _end(1)


def _end(code: int) -> NoReturn:
    """Leave at once: an orderly end would wait for the other processes."""
    for loader in multiprocessing.active_children():
        loader.terminate()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


class Report:
    """Says once per machine why a run ends, and leaves a record for the elastic agent."""

    def __init__(self, peers: Peers, timeout_minutes: float) -> None:
        self._peers, self._timeout = peers, timeout_minutes
        self._host = socket.gethostname()
        self.store: dist.Store | None = None

    def __call__(self, error: BaseException) -> int:
        """Report an error; returns the exit code."""
        kind, code, sentence = "cause", EXIT_USER_ERROR, user_message(error)
        if isinstance(error, dist.DistError) or _GLOO.match(str(error)):
            # Not the cause, but what another process's end or silence led to.
            kind, code, sentence = "lost", 1, f"lost another process ({_first_line(error)})"
            if "imed out" in str(error) or "timeout" in str(error):
                kind = "waited"
                sentence = (
                    f"waited {self._timeout:g} minutes (Distributed.timeout_minutes) for another "
                    "process, which hangs or is far behind"
                )
        elif isinstance(error, KeyboardInterrupt):
            kind, code, sentence = "interrupted", EXIT_INTERRUPTED, "interrupted"
        elif sentence is None:
            code, sentence = 1, "".join(traceback.format_exception(error)).rstrip()
        sentence = f"rank {self._peers.rank} on {self._host}: {sentence}"
        has_agent = self._record(kind, code, sentence)
        if (kind == "cause" or not has_agent) and self._is_first():
            print(f"error: {sentence}", file=sys.stderr, flush=True)
        return code

    def _record(self, kind: str, code: int, sentence: str) -> bool:
        """Write the elastic agent's error file; False where there is no agent."""
        path = os.environ.get("TORCHELASTIC_ERROR_FILE")
        if not path:
            return False
        more = {"py_callstack": sentence, "timestamp": str(int(time.time())), "kind": kind}
        content = {"message": {"message": sentence, "errorCode": code, "extraInfo": more}}
        try:
            Path(path).write_text(json.dumps(content))
        except OSError:  # a full disk
            return False
        return True

    def _is_first(self) -> bool:
        """Whether no process of this machine has reported yet; a store that is gone says yes."""
        try:
            return self.store is None or self.store.add(f"error/{self._host}", 1) == 1
        except RuntimeError:
            return True


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
