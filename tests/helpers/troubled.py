"""Train on several processes and make rank 1 fail, for tests/test_trouble.py.

TROUBLE=<kind> python tests/helpers/troubled.py --config FILE [SECTION.key value ...]
"""

import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

import tool.train
from util.config import Config, load_config
from util.distributed import Process, launch
from util.error import DataError, run_cli
from util.training import trainer
from util.training.loss import HeadLoss, SegmentationLoss
from util.training.state import State
from util.training.step import StepResult

STEP = 2  # of the failure


def run(process: Process, cfg: Config) -> None:
    trouble, calm_step = os.environ["TROUBLE"], trainer.train_step

    def step(
        cfg: Config, process: Process, state: State, criterion: SegmentationLoss, *batch: Tensor
    ) -> StepResult:
        is_first_attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0"
        if process.rank == 1 and state.step == STEP and is_first_attempt:
            if trouble == "nan":
                criterion = poisoned(criterion)
            else:
                meet(trouble)
        return calm_step(cfg, process, state, criterion, *batch)

    trainer.train_step = step
    tool.train.train(process, cfg)


def poisoned(criterion: SegmentationLoss) -> SegmentationLoss:
    def main(logits: Tensor, label: Tensor) -> HeadLoss:
        loss = criterion.main(logits, label)
        return loss._replace(total=loss.total * torch.nan)

    return SegmentationLoss(main, criterion.aux, criterion.aux_weight)


def meet(trouble: str) -> None:
    if trouble == "bug":
        raise ValueError("a bug of ours")
    if trouble == "data":
        raise DataError("image p7.png has no label: write one")
    if trouble == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if trouble == "frozen":  # like a machine that has lost its network
        os.kill(os.getpid(), signal.SIGSTOP)
    if trouble == "hanging":
        time.sleep(1000)
    if trouble == "worker":
        (worker,) = multiprocessing.active_children()
        os.kill(worker.pid, signal.SIGKILL)
        time.sleep(1000)  # interrupted by PyTorch's handler


if __name__ == "__main__":
    run_cli(lambda: launch(run, load_config(sys.argv[2], sys.argv[3:]), gpus=[]))
