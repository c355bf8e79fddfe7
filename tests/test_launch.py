"""Who starts the processes, on which devices, and what is said when they fail."""

import json
import logging
import os
import signal
import socket
import sys
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

from util.config import Config
from util.distributed import Process, StopRequest, launch
from util.distributed.agent import Nodes, inherited, root_cause, run_agent
from util.distributed.join import is_of_peers
from util.error import ConfigError, run_cli

TORCHRUN = {
    "RANK": "1",
    "LOCAL_RANK": "1",
    "WORLD_SIZE": "4",
    "MASTER_ADDR": "10.0.0.1",
    "MASTER_PORT": "29500",
}
STEP = {
    "SLURM_JOB_ID": "7",
    "SLURM_STEP_NUM_TASKS": "2",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_PROCID": "1",
    "SLURM_LOCALID": "0",
    "SLURM_LAUNCH_NODE_IPADDR": "10.0.0.1",
}
ONE_TASK = {**STEP, "SLURM_STEP_NUM_TASKS": "1", "SLURM_STEP_NUM_NODES": "1", "SLURM_PROCID": "0"}


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """found(gpus=..., environment=..., listed=..., **config) -> what launch decides there.

    (`here`, device), (`agent`, devices, nodes, node, host, port) or (`join`, rank, world size,
    device, address).
    """
    result: list[tuple] = []

    def agent(devices: list, nodes, *, timeout_minutes: float) -> None:
        place = (nodes.count, nodes.rank, nodes.host, nodes.port)
        result.append(("agent", [str(device) for device in devices], *place))

    def join(worker, cfg: Config, rank: int, world_size: int, device: torch.device) -> None:
        address = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        result.append(("join", rank, world_size, str(device), address))

    def worker(process: Process, cfg: Config) -> None:
        assert process.is_main and process.world_size == 1
        result.append(("here", str(process.device)))

    module = sys.modules["util.distributed.launch"]
    monkeypatch.setattr(module, "run_agent", agent)
    monkeypatch.setattr(module, "join", join)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    for name in list(os.environ):
        if name.startswith("SLURM_") or name in TORCHRUN:
            monkeypatch.delenv(name)

    def decide(*, gpus: int = 0, environment: dict = {}, listed=(0,), **config) -> tuple:  # noqa: B006
        result.clear()
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        with pytest.MonkeyPatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            before = dict(os.environ)
            launch(worker, Config(data_root="", classes=2, **config), gpus=listed)
            for name in set(os.environ) - set(before):
                del os.environ[name]
        (decision,) = result
        return decision

    return decide


def test_a_single_device_runs_here(found) -> None:
    assert found() == ("here", "cpu")
    assert found(gpus=8, listed=[3]) == ("here", "cuda:3")
    assert found(gpus=1, listed=[0, 1, 2, 3]) == ("here", "cuda:0")


def test_several_devices_are_started_by_the_agent(found) -> None:
    here = (1, 0, "127.0.0.1", 0)  # a port that the system chooses
    assert found(gpus=4, listed=[1, 3]) == ("agent", ["cuda:1", "cuda:3"], *here)
    assert found(num_processes=2) == ("agent", ["cpu", "cpu"], *here)
    assert found(gpus=1, num_processes=2) == ("here", "cuda:0")  # as many as GPUs, where there are


def test_one_process_where_several_are_not_wanted(found, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "semseg")
    words = {"multiprocessing_distributed": False}
    assert found(gpus=4, listed=[2, 3], **words) == ("here", "cuda:2")
    assert found(num_processes=4, **words) == ("here", "cpu")
    assert sum("multiprocessing_distributed is False" in text for text in caplog.messages) == 2


def test_machines_meet_at_dist_url(found) -> None:
    words = {"world_size": 2, "rank": 1}
    meeting = (2, 1, "10.0.0.1", 6789)
    assert found(dist_url="tcp://10.0.0.1:6789", **words) == ("agent", ["cpu"], *meeting)
    decision = found(dist_url="tcp://[fe80::1]:6789", num_processes=2, **words)
    assert decision == ("agent", ["cpu", "cpu"], 2, 1, "fe80::1", 6789)


@pytest.mark.parametrize(
    "url", ["tcp://host:abc", "tcp://[::1", "host:6789", "tcp://host", "tcp://:1", "tcp://h:99999"]
)
def test_a_malformed_dist_url(found, url: str) -> None:
    with pytest.raises(ConfigError, match="must be tcp://<address of the first node>:<port>"):
        found(dist_url=url, world_size=2)
    assert found(dist_url=url) == ("here", "cpu")  # on one machine it is not used


def test_a_rank_that_does_not_exist(found) -> None:
    with pytest.raises(ConfigError, match="rank must be less than world_size 2, got 2"):
        found(world_size=2, rank=2)


def test_torchrun(found, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "semseg")
    wanted = ("join", 1, 4, "cuda:1", "10.0.0.1:29500")
    assert found(gpus=4, environment=TORCHRUN) == wanted
    assert not caplog.messages  # the first process says it
    first = {**TORCHRUN, "RANK": "0", "LOCAL_RANK": "0"}
    assert found(gpus=4, environment=first, listed=[2, 3])[3] == "cuda:0"
    (text,) = caplog.messages
    assert "chooses the GPUs ([0] here): [2, 3] is not used" in text
    assert found(environment=TORCHRUN)[3] == "cpu"


def test_an_agent_of_ours_names_the_devices(found) -> None:
    told = json.dumps({"pid": 1, "stop_file": "stop", "devices": ["cuda:4", "cuda:6"]})
    environment = {**TORCHRUN, "SEMSEG_AGENT": told}
    assert found(gpus=8, environment=environment, listed=[4, 6])[3] == "cuda:6"


def test_only_the_processes_of_an_agent_inherit_its_variables(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What this process starts later is not theirs."""
    seen: dict = {}

    def run(processes: int, nodes: Nodes, folder: str, timeout: float, done: Future) -> None:
        seen.update(inherited(), threads=os.environ["OMP_NUM_THREADS"])
        done.set_result(None)

    monkeypatch.setattr("util.distributed.agent._elastic_agent", run)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = dict(os.environ)
    run_agent([torch.device("cpu")] * 1000, Nodes(), timeout_minutes=1)
    assert (seen["pid"], len(seen["devices"]), seen["threads"]) == (os.getpid(), 1000, "1")
    assert dict(os.environ) == before


@pytest.mark.parametrize("name", TORCHRUN)
def test_a_malformed_variable_of_torchrun(found, name: str) -> None:
    values = ["", " ", "x", "-1", "4.5", "99999999", "9" * 5000]
    values += ["4"] if name == "RANK" else []  # of 4 processes
    for value in values[:2] if name == "MASTER_ADDR" else values:
        with pytest.raises(ConfigError, match=name) as error:
            found(environment={**TORCHRUN, name: value})
        assert len(str(error.value)) < 300


@pytest.mark.parametrize(
    "environment",
    [
        {"RANK": "3"},
        {"RANK": "", "WORLD_SIZE": "", "MASTER_PORT": ""},
        {name: value for name, value in TORCHRUN.items() if name != "LOCAL_RANK"},
        {"SLURM_JOB_ID": "7"},
        {"SLURM_JOB_ID": "7", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NTASKS": "4"},
        {**STEP, "SLURM_STEP_NUM_TASKS": ""},
        {**STEP, "SLURM_PROCID": "x"},
        {**STEP, "SLURM_PTY_PORT": "4711", "SLURM_PTY_WIN_COL": "80"},  # srun --pty bash
    ],
)
def test_variables_of_other_launchers_are_harmless(found, environment: dict[str, str]) -> None:
    assert found(gpus=4, listed=[3], environment=environment) == ("here", "cuda:3")


def test_srun_with_a_task_a_node(found, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "semseg")
    meeting = (2, 1, "10.0.0.1", 20007)
    assert found(environment=STEP) == ("agent", ["cpu"], *meeting)
    caplog.clear()
    decision = found(gpus=2, environment=STEP, listed=[5, 6, 7])
    assert decision == ("agent", ["cuda:0", "cuda:1"], *meeting)
    (text,) = caplog.messages
    assert "chooses the GPUs ([0, 1] here): [5, 6, 7] is not used" in text
    assert found(gpus=2, environment=ONE_TASK)[1] == ["cuda:0", "cuda:1"]
    address = {"MASTER_ADDR": "first", "MASTER_PORT": "4000"}
    assert found(environment={**STEP, **address})[4:] == ("first", 4000)


def test_srun_with_several_tasks_a_node(found) -> None:
    environment = {**STEP, "SLURM_STEP_NUM_TASKS": "8", "SLURM_PROCID": "5", "SLURM_LOCALID": "1"}
    wanted = ("join", 5, 8, "cuda:1", "10.0.0.1:20007")
    assert found(gpus=4, environment=environment) == wanted
    assert found(gpus=1, environment=environment)[3] == "cuda:0"  # a task sees its own GPU alone
    del environment["SLURM_LAUNCH_NODE_IPADDR"]
    with pytest.raises(ConfigError, match="set MASTER_ADDR to the first node"):
        found(environment=environment)


# What is said of failures -------------------------------------------------------------------------


def failure(
    folder: Path, rank: int, code: int, *, kind: str = "", seconds: int = 0
) -> ProcessFailure:
    """As the elastic agent makes it, from the file that a process has left, after `seconds`."""
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


def test_a_process_that_has_said_the_cause(tmp_path: Path) -> None:
    said = {"code": 2, "kind": "cause"}
    assert cause(tmp_path, LOST, said, WAITED, {"code": 75}) == ("", 2)
    assert cause(tmp_path, {"code": -15}, {"code": 2}) == ("", 2)  # before the processes met


def test_a_process_that_was_killed_is_named_before_those_that_lost_it(tmp_path: Path) -> None:
    sentence, code = cause(tmp_path, LOST, {"code": -signal.SIGKILL}, {"code": -signal.SIGABRT})
    assert code == 1 and sentence.startswith(f"rank 1 on {HOST} was killed by SIGKILL: usually")
    sentence, _ = cause(tmp_path, LOST, {"code": -signal.SIGSEGV})
    assert sentence == f"rank 1 on {HOST} was killed by SIGSEGV"
    assert cause(tmp_path, LOST, {"code": 9})[0] == f"rank 1 on {HOST} ended with exit code 9"


def test_a_process_that_does_not_answer_is_named(tmp_path: Path) -> None:
    """The others have waited, or NCCL's watchdog has aborted them; SIGTERM did not end it."""
    for others in (WAITED, {"code": -signal.SIGABRT}):
        sentence, code = cause(tmp_path, others, others, ENDED_BY_AGENT)
        assert code == 1
        assert sentence.startswith(f"rank 2 on {HOST} hangs: it did not answer for 5 minutes")
    assert cause(tmp_path, LOST, WAITED) == ("rank 1: waited it said", 1)


def test_what_happened_on_another_machine(tmp_path: Path) -> None:
    sentence, code = cause(tmp_path, LOST, LOST)
    assert sentence == "rank 0: lost it said; see the output of the other machines" and code == 1
    sentence, code = cause(tmp_path, {"code": -signal.SIGABRT}, {"code": -signal.SIGTERM})
    assert sentence.startswith(f"rank 0 on {HOST} was aborted, with NCCL usually") and code == 1


def test_processes_that_were_asked_to_end(tmp_path: Path) -> None:
    assert cause(tmp_path, {"code": 75}, {"code": -15}, {"code": -signal.SIGUSR1}) == ("", 75)
    assert cause(tmp_path, LOST, {"code": 75}) == ("", 75)  # one alone, before the first step
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
def test_a_lost_process_is_known_by_the_origin_of_the_error(error: Exception, wanted: bool) -> None:
    assert is_of_peers(error) == wanted


# Signals ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGUSR1"])
def test_a_signal_is_noted_within_a_stop_request_and_ends_the_tool_outside(
    capsys: pytest.CaptureFixture, name: str
) -> None:
    number, seen = getattr(signal, name), []
    before = signal.getsignal(number)

    def main() -> None:
        with StopRequest() as stop:
            assert not stop.name
        with pytest.raises(SystemExit):
            signal.raise_signal(number)
        seen.append("ended")
        raise SystemExit(0)

    with pytest.raises(SystemExit):
        run_cli(main)
    assert seen == ["ended"] and signal.getsignal(number) == before

    def loop() -> None:
        with StopRequest() as stop:
            signal.raise_signal(number)
            signal.raise_signal(signal.SIGTERM)
            assert stop.name == name
        signal.raise_signal(number)  # once more, while it saves
        seen.append("saved")

    run_cli(loop)
    assert seen == ["ended", "saved"]

    def start() -> None:
        signal.raise_signal(number)
        raise AssertionError

    with pytest.raises(SystemExit) as stop:
        run_cli(start)
    assert stop.value.code == 75 and capsys.readouterr().err == f"stopped by {name}\n"
    assert signal.getsignal(number) == before


def test_a_signal_that_nohup_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        run_cli(lambda: signal.raise_signal(signal.SIGHUP))
        with StopRequest() as stop:
            signal.raise_signal(signal.SIGHUP)
        assert not stop.name
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_second_ctrl_c_is_not_noted() -> None:
    with StopRequest(signal.SIGINT) as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.name == "SIGINT"
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_a_tool_obeys_from_its_first_lines(tmp_path: Path) -> None:
    """Before it has imported what takes seconds."""
    from tests.conftest import ROOT, command

    script = (
        f"import signal, sys; sys.argv[0] = {str(ROOT / 'tool/train.py')!r}; "
        f"sys.path.insert(0, {str(ROOT)!r}); import util.error; signal.raise_signal(10)"
    )
    assert command(sys.executable, "-c", script).returncode == 75
