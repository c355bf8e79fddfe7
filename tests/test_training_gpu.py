"""A training step on a GPU: no host sync, fused optimizers, no trace of skipped steps."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.helpers.small_net import SmallNet
from tests.helpers.small_run import SmallRun
from util.distributed import Process
from util.training.loss import CrossEntropy, HeadLoss
from util.training.state import start_state
from util.training.step import train_mode

pytestmark = pytest.mark.gpu
CUDA = torch.device("cuda")


def gpu_run(tiny: Path, **values: object) -> SmallRun:
    run = SmallRun(tiny, channels_last=True, epochs=99, **values)
    run.process = Process(device=CUDA)
    run.state = start_state(run.cfg, run.process, SmallNet(), steps_per_epoch=99)
    train_mode(run.state.model, freeze_bn=False)
    return run


@pytest.mark.parametrize("amp", ["off", "tf32", "bf16", "fp16"])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_step_does_not_wait_for_the_device(tiny: Path, optimizer: str, amp: str) -> None:
    run = gpu_run(tiny, optimizer=optimizer, amp=amp)
    for _ in range(3):  # warm up
        run.step()
    torch.cuda.set_sync_debug_mode("error")
    try:
        run.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for parameter, buffers in run.buffers():
        for buffer in buffers.values():
            assert buffer.dim() == 0 or buffer.stride() == parameter.stride()


def infinite(logits: Tensor, label: Tensor) -> HeadLoss:
    loss = CrossEntropy(255)(logits, label)
    return loss._replace(total=loss.total * torch.inf)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_step_that_is_not_finite_leaves_no_trace(tiny: Path, optimizer: str) -> None:
    run = gpu_run(tiny, optimizer=optimizer)
    run.step()
    before = run.everything()
    assert run.step(infinite).left_out == 1
    assert all(torch.equal(value, before[name]) for name, value in run.everything().items())


def test_a_checkpoint_of_the_cpu_continues_on_the_gpu(tiny: Path) -> None:
    start = SmallRun(tiny, channels_last=False, epochs=99)
    start.step()
    run = gpu_run(tiny)
    run.restore(start.content())
    run.step()
    assert all(weight.isfinite().all() for weight in run.weights())
