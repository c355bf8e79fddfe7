"""Starts one process per device with PyTorch's elastic agent, the one behind torchrun."""

import json
import logging
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from util.distributed.signals import StopRequest
from util.error import EXIT_INTERRUPTED, EXIT_STOPPED, EXIT_USER_ERROR, STOP_SIGNALS, ConfigError

log = logging.getLogger("semseg")

POLL = 0.3  # seconds between checks of processes and signals
GRACE = 10.0  # seconds processes are given to exit after Ctrl-C
_VARIABLE = "SEMSEG_AGENT"
_INHERITED = (_VARIABLE, "OMP_NUM_THREADS", "PYTHONWARNINGS")

# Kind of failure -> message; ordered from root causes to consequences.
_KINDS = {
    "cause": "",  # the process has printed its own message
    "killed": "{who} was killed by {signal}{hint}",
    "exited": "{who} ended with exit code {code}",
    "hung": "{who} hangs: it did not answer {limit} and ignored SIGTERM",
    "waited": "{said}",
    "aborted": "{who} was aborted, with NCCL usually because another process exited or did not "
    "answer {limit}: see PyTorch's messages above",
    "interrupted": "interrupted",
    "stopped": "",
    "lost": "{said}; see the output of the other machines",
}


@dataclass(frozen=True)
class Nodes:
    """The machines of a run: how many, which one this is, and where they meet."""

    count: int = 1
    rank: int = 0
    host: str = "127.0.0.1"
    port: int = 0  # 0: any free port


def inherited() -> dict[str, Any]:
    """Return what `run_agent` passed to this process; empty if something else started it."""
    return json.loads(os.environ.get(_VARIABLE, "{}"))


def run_agent(devices: Sequence[torch.device], nodes: Nodes, *, timeout_minutes: float) -> None:
    """Run the current command in one process per device and wait for all of them.

    Exits with their exit code if it is not 0. Signals are forwarded through a file because a
    process may still be importing, with no handler installed.
    """
    with tempfile.TemporaryDirectory(prefix="semseg-", ignore_cleanup_errors=True) as folder:
        stop_file = Path(folder, "stop")
        where = f" of machine {nodes.rank} of {nodes.count}" if nodes.count > 1 else ""
        several = "es" if len(devices) > 1 else ""
        names = ", ".join(map(str, devices))
        log.info(f"starting {len(devices)} process{several}{where} on {names}")
        done: Future[None] = Future()
        # In a thread, so that it sees no signals: it would kill processes that save for over 30 s.
        agent = threading.Thread(
            target=_elastic_agent,
            args=(len(devices), nodes, folder, timeout_minutes, done),
            daemon=True,
        )
        with _environment(devices, stop_file), StopRequest(signal.SIGINT) as stop:
            agent.start()
            asked = 0.0
            while agent.is_alive():
                agent.join(POLL)
                if stop.name and not asked:
                    asked = time.monotonic()
                    stop_file.write_text(stop.name)
                    if len(list(Path(folder).iterdir())) == 1:  # no process has been started yet
                        break
                if stop.name == "SIGINT" and time.monotonic() - asked > GRACE:
                    break
        if stop.name == "SIGINT":
            raise KeyboardInterrupt
        code = _exit_code(done, nodes, timeout_minutes) if done.done() else EXIT_STOPPED
    if code:
        sys.exit(code)


@contextmanager
def _environment(devices: Sequence[torch.device], stop_file: Path) -> Iterator[None]:
    """Set the environment variables that the processes inherit, and restore them afterwards."""
    before = {name: os.environ.get(name) for name in _INHERITED}
    told = {"pid": os.getpid(), "stop_file": str(stop_file), "devices": [*map(str, devices)]}
    os.environ[_VARIABLE] = json.dumps(told)
    if devices[0].type == "cpu":  # otherwise each process would use all cores
        linux = hasattr(os, "sched_getaffinity")
        cores = len(os.sched_getaffinity(0)) if linux else os.cpu_count() or 1
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores // len(devices))))
    # os._exit leaks semaphores; Python's resource tracker frees them but would print a warning.
    os.environ.setdefault("PYTHONWARNINGS", "ignore:resource_tracker")
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _elastic_agent(
    processes: int, nodes: Nodes, folder: str, timeout_minutes: float, done: Future
) -> None:
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    # Silence the agent's own logging: root_cause prints one clear message instead.
    logger = logging.getLogger("torch.distributed.elastic")
    logger.addHandler(logging.NullHandler())
    logger.propagate = False
    one_machine = nodes.count == 1
    try:
        config = LaunchConfig(
            min_nodes=nodes.count,
            max_nodes=nodes.count,
            nproc_per_node=processes,
            run_id="semseg",
            rdzv_backend="c10d" if one_machine else "static",
            rdzv_endpoint=f"{nodes.host}:{nodes.port}",
            rdzv_configs={"rank": nodes.rank, "timeout": max(1, round(60 * timeout_minutes))},
            local_addr="127.0.0.1" if one_machine else None,
            max_restarts=0,
            monitor_interval=POLL,
            logs_specs=DefaultLogsSpecs(folder),
        )
        # The current command; `$` must be escaped because the agent substitutes variables.
        flags = sys.orig_argv[1 : -len(sys.argv)]
        flags = flags if sys.orig_argv[1:] == [*flags, *sys.argv] else []
        command = [word.replace("$", "$$") for word in (*flags, *sys.argv)]
        done.set_result(elastic_launch(config, sys.executable)(*command))
    except BaseException as error:
        done.set_exception(error)


def _exit_code(done: Future, nodes: Nodes, timeout_minutes: float) -> int:
    """Return the exit code of the run; print the cause unless a process already has."""
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous import RendezvousError

    error = done.exception()
    if isinstance(error, ChildFailedError):
        sentence, code = root_cause(error.failures, timeout_minutes=timeout_minutes)
        if sentence:
            print(f"error: {sentence}", file=sys.stderr, flush=True)
        return code
    if isinstance(error, RuntimeError | RendezvousError):
        raise ConfigError(
            f"{nodes.count} machine{'s' * (nodes.count > 1)} should meet at "
            f"{nodes.host}:{nodes.port} within {timeout_minutes:g} minutes "
            "(Distributed.timeout_minutes), but did not "
            f"({str(error).strip().splitlines()[0]}): start the same command on all of them, each "
            "with its own Distributed.rank; dist_url is the first one's address and a free port "
            "(with srun: the environment variables MASTER_ADDR and MASTER_PORT)"
        )
    if error:
        raise error
    return 0


def root_cause(failures: Mapping[int, Any], *, timeout_minutes: float) -> tuple[str, int]:
    """Find the failure that caused the others, given the agent's ProcessFailure by rank.

    Returns a message, empty if the process has printed it itself, and the exit code.
    """
    first = min(failure.timestamp for failure in failures.values())
    # The agent sends SIGTERM to the remaining processes, and SIGKILL 30 seconds later.
    kinds = {rank: _kind(f, is_late=f.timestamp - first > 20) for rank, f in failures.items()}
    rank = min(kinds, key=lambda rank: list(_KINDS).index(kinds[rank]))
    failure, code = failures[rank], max(1, failures[rank].exitcode)
    sentence = _KINDS[kinds[rank]].format(
        who=f"rank {rank} on {socket.gethostname()}",
        signal=failure.signal_name(),
        hint=": usually the machine is out of memory" if failure.exitcode == -9 else "",
        code=code,
        limit=f"for {timeout_minutes:g} minutes (Distributed.timeout_minutes)",
        said=failure.message["message"] if isinstance(failure.message, dict) else "",
    )
    return sentence, {"interrupted": EXIT_INTERRUPTED, "stopped": EXIT_STOPPED}.get(
        kinds[rank], code
    )


def _kind(failure: Any, *, is_late: bool) -> str:
    """Classify a ProcessFailure by what its process reported, else by its exit code."""
    if isinstance(failure.message, dict):
        return failure.message["extraInfo"].get("kind", "cause")
    code = failure.exitcode
    if code == EXIT_STOPPED or -code in STOP_SIGNALS:
        return "stopped"
    if code == EXIT_INTERRUPTED or -code == signal.SIGINT:
        return "interrupted"
    if code > 0:  # run_cli has printed a user's mistake
        return "cause" if code == EXIT_USER_ERROR else "exited"
    if -code == signal.SIGABRT:
        return "aborted"
    return "hung" if is_late else "killed"
