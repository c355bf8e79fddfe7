"""Messages about failed processes."""

import json
import signal
import socket
from pathlib import Path

import pytest
import torch.distributed as dist
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

from util.distributed.agent import root_cause
from util.distributed.join import is_of_peers


def failure(
    folder: Path, rank: int, code: int, *, kind: str = "", seconds: int = 0
) -> ProcessFailure:
    """Create the elastic agent's ProcessFailure from a process's error file, after `seconds`."""
    path = folder / f"{rank}.json"
    path.unlink(missing_ok=True)
    if kind:
        more = {"py_callstack": "", "timestamp": "1000", "kind": kind}
        message = {"message": f"rank {rank}: {kind} it said", "extraInfo": more}
        path.write_text(json.dumps({"message": message}))
    made = ProcessFailure(local_rank=rank, pid=1, exitcode=code, error_file=str(path))
    made.timestamp = 1000 + seconds
    return made


def cause(folder: Path, *failures: dict) -> tuple[str, int]:
    made = {rank: failure(folder, rank, **words) for rank, words in enumerate(failures)}
    return root_cause(made, timeout_minutes=5)


LOST = {"code": 1, "kind": "lost"}
WAITED = {"code": 1, "kind": "waited"}
ENDED_BY_AGENT = {"code": -signal.SIGKILL, "seconds": 30}
HOST = socket.gethostname()


def test_process_that_reported_the_cause(tmp_path: Path) -> None:
    said = {"code": 2, "kind": "cause"}
    assert cause(tmp_path, LOST, said, WAITED, {"code": 75}) == ("", 2)
    assert cause(tmp_path, {"code": -15}, {"code": 2}) == ("", 2)  # before the processes met


def test_killed_process_is_named_before_its_peers(tmp_path: Path) -> None:
    sentence, code = cause(tmp_path, LOST, {"code": -signal.SIGKILL}, {"code": -signal.SIGABRT})
    assert code == 1 and sentence.startswith(f"rank 1 on {HOST} was killed by SIGKILL: usually")
    sentence, _ = cause(tmp_path, LOST, {"code": -signal.SIGSEGV})
    assert sentence == f"rank 1 on {HOST} was killed by SIGSEGV"
    assert cause(tmp_path, LOST, {"code": 9})[0] == f"rank 1 on {HOST} ended with exit code 9"


def test_hanging_process_is_named(tmp_path: Path) -> None:
    """Its peers timed out or were aborted by NCCL's watchdog, and it ignored SIGTERM."""
    for others in (WAITED, {"code": -signal.SIGABRT}):
        sentence, code = cause(tmp_path, others, others, ENDED_BY_AGENT)
        assert code == 1
        assert sentence.startswith(f"rank 2 on {HOST} hangs: it did not answer for 5 minutes")
    assert cause(tmp_path, LOST, WAITED) == ("rank 1: waited it said", 1)


def test_failure_on_another_machine(tmp_path: Path) -> None:
    sentence, code = cause(tmp_path, LOST, LOST)
    assert sentence == "rank 0: lost it said; see the output of the other machines" and code == 1
    sentence, code = cause(tmp_path, {"code": -signal.SIGABRT}, {"code": -signal.SIGTERM})
    assert sentence.startswith(f"rank 0 on {HOST} was aborted, with NCCL usually") and code == 1


def test_processes_stopped_by_a_signal(tmp_path: Path) -> None:
    assert cause(tmp_path, {"code": 75}, {"code": -15}, {"code": -signal.SIGUSR1}) == ("", 75)
    assert cause(tmp_path, LOST, {"code": 75}) == (
        "",
        75,
    )  # only one process, before the first step
    assert cause(tmp_path, LOST, {"code": 130}, {"code": 75}) == ("interrupted", 130)


@pytest.mark.parametrize(
    ("error", "wanted"),
    [
        (RuntimeError("[/src/third_party/gloo/gloo/transport/tcp/pair.cc:5] Connection re"), True),
        (RuntimeError("[/a/gloo/transport/tcp/unbound_buffer.cc:8] Timed out waiting 6 ms"), True),
        (dist.DistBackendError("NCCL error in: unhandled system error"), True),
        (dist.DistStoreError("wait timeout after 6000ms, keys: /a"), True),
        (RuntimeError("CUDA error: the launch timed out and was terminated"), False),
        (RuntimeError("DataLoader timed out after 5 seconds"), False),
        (ConnectionResetError("Connection reset by peer"), False),
        (ValueError("[/src/gloo/x.cc:5] Connection closed by peer"), False),
    ],
)
def test_lost_peer_is_recognised_by_the_error(error: Exception, wanted: bool) -> None:
    assert is_of_peers(error) == wanted
