"""Kill a training thirty times at random moments and resume each time, for tests/test_kills.py.

python tests/helpers/kills.py CONFIG FOLDER trains undisturbed into FOLDER/whole, then into
FOLDER/killed; the last line it prints is `<kills> kills, <n> while saving`.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

import torch
import torch._dynamo  # by the first step; here once for all starts

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

import model.build
from tests.helpers.small_net import SmallNet
from tool.train import main
from util.error import run_cli

KILLS = 30
WORDS = ["epochs", "90", "save_freq", "90", "batch_size", "2", "workers", "1"]  # 180 steps


def start(config: str, folder: Path, *words: str) -> int:
    """Train a small network in a forked process, which need not import modules again.

    Returns its pid.
    """
    pid = os.fork()
    if pid:
        return pid
    torch.set_num_threads(1)
    write_out = os.fsync

    def slowly(file: int) -> None:  # so that some kills interrupt saving
        time.sleep(0.1)
        write_out(file)

    os.fsync = slowly
    model.build.build_model = lambda cfg, **_: SmallNet(cfg.classes, dropout=0.1)
    model.build.load_pretrained = model.build.build_model
    folder.parent.mkdir(parents=True, exist_ok=True)
    log = os.open(folder.parent / f"{folder.name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    save_path = str(folder / "model")
    sys.argv = ["train.py", "--config", config, *WORDS, "save_path", save_path, *words]
    code = 0
    try:
        run_cli(main)
    except SystemExit as stop:
        code = int(stop.code or 0)
    os._exit(code)


def exit_code(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def kill_and_go_on(config: str, folder: Path) -> tuple[int, int]:
    """(kills, kills that left an unfinished file); the last start runs to the end."""
    rng, during_save = random.Random(0), 0
    words = ["save_every_steps", "1", "resume", "auto"]
    log = folder.parent / f"{folder.name}.log"
    for kill in range(KILLS):
        seen = log.stat().st_size if log.exists() else 0
        pid = start(config, folder, *words)
        while b"saved" not in (log.read_bytes()[seen:] if log.exists() else b""):
            time.sleep(0.02)
        time.sleep(rng.uniform(0, 0.5))
        end = time.monotonic() + 10
        while kill % 3 == 0 and not is_saving(folder) and time.monotonic() < end:
            time.sleep(0.001)  # every third kill waits until the next checkpoint is being written
        os.kill(pid, signal.SIGKILL)
        code = exit_code(pid)
        assert code == -signal.SIGKILL, f"start {kill} ended by itself with {code}"
        during_save += is_saving(folder)
    assert exit_code(start(config, folder, *words)) == 0, log.read_text()[-2000:]
    return KILLS, during_save


def is_saving(folder: Path) -> bool:
    """Whether there is an unfinished checkpoint."""
    return any((folder / "model").glob("*.pth.tmp"))


if __name__ == "__main__":
    config, folder = sys.argv[1], Path(sys.argv[2])
    assert exit_code(start(config, folder / "whole")) == 0
    kills, during_save = kill_and_go_on(config, folder / "killed")
    print(f"{kills} kills, {during_save} while saving")
