"""Steps with a non-finite loss or gradient change nothing, and their images are named."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tests.conftest import RunTool, assert_one_sentence
from tests.helpers.runs import records, weights
from tests.helpers.small_run import PLAIN, SmallRun
from util.data.image import read_label, write_label
from util.error import RunError
from util.training.checkpoint import checkpoints
from util.training.loss import HeadLoss, PixelLoss
from util.training.nonfinite import BatchNormStatistics, has_nonfinite_gradient
from util.training.statistics import EpochStatistics


def infinite_loss(logits: Tensor, label: Tensor) -> HeadLoss:
    loss = PLAIN(logits, label)
    return loss._replace(total=loss.total * torch.inf)


def infinite_gradient(logits: Tensor, label: Tensor) -> HeadLoss:
    """A finite loss with an infinite gradient: sqrt at 0."""
    loss = PLAIN(logits, label)
    return loss._replace(total=loss.total + (loss.total * 0).sqrt())


@pytest.mark.parametrize("criterion", [infinite_loss, infinite_gradient])
@pytest.mark.parametrize("first", [True, False])
def test_nonfinite_step_leaves_no_trace(
    tiny: Path, caplog: pytest.LogCaptureFixture, criterion: PixelLoss, first: bool
) -> None:
    run = SmallRun(tiny, nonfinite="skip")
    if not first:
        run.step(PLAIN)
    before = run.everything()
    assert run.step(criterion).left_out == 1
    after = run.everything()
    assert before.keys() == after.keys()
    assert [name for name in before if not torch.equal(before[name], after[name])] == []
    with caplog.at_level(logging.INFO):
        run.check.look()
    what = "loss" if criterion is infinite_loss else "gradient"
    (text,) = caplog.messages
    assert text.startswith(f"the {what} of step {run.state.step} is not finite (images p")
    assert run.check.skipped == 1
    assert run.step(PLAIN).left_out == 0
    run.check.look()  # reports each step once
    assert run.check.skipped == 1 and len(caplog.messages) == 1


def test_nonfinite_step_ends_the_run_by_default(tiny: Path) -> None:
    run = SmallRun(tiny)
    run.step(PLAIN)
    run.step(infinite_loss)
    with pytest.raises(RunError, match=r"step 2 is not finite \(images p\d\.png, p\d\.png\): low"):
        run.check.look()


def test_a_step_that_the_scaler_skips_counts_as_skipped(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Overflows while fp16 searches for its scale do not end the run."""
    monkeypatch.setattr("util.training.state.usable_amp", lambda kind, device: kind)
    run = SmallRun(tiny, amp="fp16")
    run.state.scaler = torch.amp.GradScaler("cpu", init_scale=1e38)
    before = run.everything()
    statistics = EpochStatistics(run.cfg, run.process, amp=run.state.amp)
    result = run.step(PLAIN)
    statistics.add(result)
    assert result.left_out == 1 and result.losses[0].isfinite()
    assert all(torch.equal(value, before[name]) for name, value in run.everything().items())
    run.check.look()
    assert run.check.skipped == 0 and not caplog.messages
    record = statistics.sum()[1]
    assert (record["steps"], record["skipped_steps"], record["train_loss"]) == (0, 1, 0)
    run.state.scaler = torch.amp.GradScaler("cpu", init_scale=128.0)
    statistics.add(run.step(PLAIN))
    record = statistics.sum()[1]
    assert (record["steps"], record["skipped_steps"]) == (1, 1) and record["train_loss"] > 0
    run.step(infinite_loss)
    with pytest.raises(RunError, match="the loss of step 3 is not finite"):
        run.check.look()


def test_fp16_that_is_not_available_hides_no_skipped_step(tiny: Path) -> None:
    """On a CPU without fp16 the run is in float32, where gradients do not overflow."""
    run = SmallRun(tiny, amp="fp16")
    if run.state.amp == "fp16":
        pytest.skip("this CPU has fp16")
    statistics = EpochStatistics(run.cfg, run.process, amp=run.state.amp)
    statistics.add(run.step(infinite_gradient))
    with pytest.raises(RunError, match=r"the gradient of step 1 .* or look at these images"):
        run.check.look()
    with pytest.raises(RunError, match="every step of this epoch was skipped"):
        statistics.sum()


def test_counters_of_a_skipped_step_in_parts() -> None:
    """BatchNorm counts each micro-batch."""
    norm = torch.nn.BatchNorm2d(3)
    before = BatchNormStatistics(norm)
    for _ in range(2):
        norm(torch.randn(2, 3, 4, 4))
    before.restore_if(torch.tensor(0.0))
    assert norm.num_batches_tracked == 2
    before.restore_if(torch.tensor(1.0))
    assert norm.num_batches_tracked == 0 and norm.running_mean.abs().max() == 0


class CountOperations(TorchDispatchMode):
    """Counts operations sent to the device."""

    count = 0

    def __torch_dispatch__(
        self, function: object, types: object, args: tuple = (), kwargs: dict | None = None
    ) -> object:
        self.count += 1
        return function(*args, **(kwargs or {}))


def test_the_check_is_a_few_operations_a_step(tiny: Path) -> None:
    """Not a few for each of the 37 parameters and 22 statistics of this network."""
    run = SmallRun(tiny)
    run.step(PLAIN)
    with CountOperations() as operations:
        statistics = BatchNormStatistics(run.state.model)
        left_out = has_nonfinite_gradient(run.state.model)
        assert operations.count < 15
        statistics.restore_if(left_out)
    assert operations.count < 50  # 22 of them are views


def test_a_run_that_diverges(tiny: Path, tmp_path: Path, run_tool: RunTool) -> None:
    words = ["--config", tiny, "epochs", 9, "base_lr", 1000]
    code, _, err = run_tool("train", *words, "save_freq", 9)
    assert_one_sentence(code, err, "is not finite (images p", "lower TRAIN.base_lr", "skip")
    assert not checkpoints(tmp_path / "run/model")
    # Statistics overflow before the loss does: these are not saved either.
    code, _, err = run_tool("train", *words)
    assert_one_sentence(
        code, err, "running_var", "the run has diverged, and this state is not saved"
    )
    for path in checkpoints(tmp_path / "run/model"):
        assert all(v.isfinite().all() for v in weights(path).values()), path
    words += ["nonfinite", "skip", "save_freq", 9, "save_path", tmp_path / "b/model"]
    code, _, err = run_tool("train", *words)
    assert_one_sentence(
        code, err, "every step of this epoch was skipped", "has diverged", "base_lr (1000.0"
    )


def test_images_without_any_label_do_no_harm(tiny: Path, tmp_path: Path, run_tool: RunTool) -> None:
    for path in (tmp_path / "data/labels").iterdir():
        write_label(path, np.full_like(read_label(path), 255))
    code, _, err = run_tool("train", "--config", tiny, "evaluate", True)
    assert code == 0, err
    assert records(tmp_path / "run")[0]["train_loss"] == 0
    found = weights(tmp_path / "run/model/train_epoch_1.pth")
    assert all(value.isfinite().all() for value in found.values())
