"""Launching: who starts the processes, on which devices, and mistakes."""

import json
import logging
import os
import sys
from concurrent.futures import Future
from types import SimpleNamespace

import pytest
import torch

from util.config import Config
from util.distributed import Process, launch
from util.distributed.agent import Nodes, inherited, run_agent
from util.error import ConfigError

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
    here = (1, 0, "127.0.0.1", 0)  # port 0: any free port
    assert found(gpus=4, listed=[1, 3]) == ("agent", ["cuda:1", "cuda:3"], *here)
    assert found(num_processes=2) == ("agent", ["cpu", "cpu"], *here)
    assert found(gpus=1, num_processes=2) == ("here", "cuda:0")  # one process per GPU, if any


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
    assert found(dist_url=url) == ("here", "cpu")  # not used on a single machine


def test_a_rank_that_does_not_exist(found) -> None:
    with pytest.raises(ConfigError, match="rank must be less than world_size 2, got 2"):
        found(world_size=2, rank=2)


def test_torchrun(found, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "semseg")
    wanted = ("join", 1, 4, "cuda:1", "10.0.0.1:29500")
    assert found(gpus=4, environment=TORCHRUN) == wanted
    assert not caplog.messages  # only the first process logs it
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
    """Later child processes of this process do not inherit them."""
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
    one_node = {**STEP, "SLURM_STEP_NUM_NODES": "1"}
    assert found(environment=one_node)[4] == "127.0.0.1:20007"  # also when called on a login node
    address = {"MASTER_ADDR": "first", "MASTER_PORT": "4000"}
    assert found(environment={**STEP, **address})[4:] == ("first", 4000)


def test_srun_with_several_tasks_a_node(found) -> None:
    environment = {**STEP, "SLURM_STEP_NUM_TASKS": "8", "SLURM_PROCID": "5", "SLURM_LOCALID": "1"}
    wanted = ("join", 5, 8, "cuda:1", "10.0.0.1:20007")
    assert found(gpus=4, environment=environment) == wanted
    assert found(gpus=1, environment=environment)[3] == "cuda:0"  # a task sees only its own GPU
    del environment["SLURM_LAUNCH_NODE_IPADDR"]
    with pytest.raises(ConfigError, match="set MASTER_ADDR to the first node"):
        found(environment=environment)
