"""Resuming: the optimizer's buffers in every layout, and every field of a checkpoint checked."""

import logging
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.helpers.small_run import SmallRun
from util.error import CheckpointError, ConfigError, RunError, UserError

OPTIMIZERS = ("sgd", "adamw")


def equal(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_momentum_lies_in_memory_as_its_parameter(tiny: Path) -> None:
    """CUDA's fused kernel requires this. After one step without decay momentum is the gradient."""
    run = SmallRun(tiny, channels_last=True, weight_decay=0.0)
    run.step()
    assert len(run.buffers()) == 37
    for parameter, buffers in run.buffers():
        momentum = buffers["momentum_buffer"]
        assert momentum.stride() == parameter.stride()
        assert torch.equal(momentum, parameter.grad)


@pytest.mark.parametrize("saved_in", [True, False])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_resumed_state_is_the_same_to_the_bit(tiny: Path, optimizer: str, saved_in: bool) -> None:
    """Independent of the memory layout when it was saved."""
    whole = SmallRun(tiny, optimizer=optimizer, channels_last=saved_in, warmup_steps=1)
    whole.step()
    content = whole.content()
    run = SmallRun(tiny, channels_last=True, optimizer=optimizer, warmup_steps=1)
    run.restore(content)
    assert run.state.step == 1 and run.state.rate(run.cfg) == content["lr"]
    for (parameter, found), (_, wanted) in zip(run.buffers(), whole.buffers(), strict=True):
        assert found.keys() == wanted.keys()
        for name, value in found.items():
            assert torch.equal(value, wanted[name])
            assert value.stride() == (parameter.stride() if value.dim() else ())
    if saved_in:
        for one in (whole, run):
            one.step()
        assert equal(whole.weights(), run.weights())


def test_old_momentum_layout_is_converted(tiny: Path) -> None:
    """Version 1.0 stored it in the weight's memory order, but with other strides."""
    whole = SmallRun(tiny, channels_last=True)
    whole.step()
    content = whole.content()
    changed = 0
    for buffers in content["optimizer"]["state"].values():
        value = buffers["momentum_buffer"]
        flat = value.permute(0, 2, 3, 1) if value.dim() == 4 else value
        buffers["momentum_buffer"] = flat.contiguous().view(value.shape)
        changed += not torch.equal(buffers["momentum_buffer"], value)
    assert changed == 7
    run = SmallRun(tiny, channels_last=True)
    run.restore(content)
    for one in (whole, run):
        one.step()
    assert equal(whole.weights(), run.weights())


@pytest.mark.slow
def test_the_scale_of_fp16_is_resumed(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """fp16 is forced, because a CPU without fp16 arithmetic would use float32."""
    monkeypatch.setattr("util.training.state.usable_amp", lambda kind, device: kind)
    whole, run = (SmallRun(tiny, amp="fp16", epochs=99) for _ in range(2))
    whole.state.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**60)  # far too large
    for _ in range(2):
        assert whole.step().left_out == 1
    whole.state.epoch, whole.state.step_in_epoch = 1, 0
    content = whole.content()
    assert content["scaler"]["scale"] == 2.0**58
    run.restore(content)
    for one in (whole, run):
        for _ in range(60):
            taken = one.step().left_out == 0
            if taken:
                break
        assert taken
    assert whole.state.scaler.state_dict() == run.state.scaler.state_dict()
    assert equal(whole.weights(), run.weights())


def test_momentum_may_be_switched_on_and_off(tiny: Path, caplog: pytest.LogCaptureFixture) -> None:
    with_momentum, without = (
        SmallRun(tiny, channels_last=True),
        SmallRun(tiny, channels_last=True, momentum=0.0),
    )
    with_momentum.step()
    without.step()
    SmallRun(tiny, channels_last=True, momentum=0.0).restore(with_momentum.content())
    with caplog.at_level(logging.INFO):
        SmallRun(tiny, channels_last=True).restore(without.content())
    assert "c.pth was saved without momentum, which starts at 0" in caplog.messages


def test_a_step_counts_towards_adamw_only_if_it_is_taken(tiny: Path) -> None:
    run = SmallRun(tiny, channels_last=True, optimizer="adamw")
    run.step()
    run.state.model.cls[4].weight.register_hook(lambda grad: grad * torch.nan)
    before = run.weights()
    run.step()
    assert equal(before, run.weights())
    assert all(buffers["step"] == 1 for _, buffers in run.buffers())


MOMENTUM = ("optimizer", "state", 0, "momentum_buffer")


@pytest.mark.parametrize(
    ("path", "value", "part"),
    [
        (["epoch"], None, "has no epoch, so it is not a training checkpoint"),
        *((["epoch"], v, f"holds epoch '{v}', which must be a whole number from 0") for v in
          ("1", -1, 1.0, [1], True, 2**40)),
        *((["step_in_epoch"], v, "holds step_in_epoch") for v in ("1", -1, 0.5)),
        *((["seed"], v, "holds seed") for v in (2**70, -1, "x")),
        *((["lr"], v, "holds lr") for v in ("x", float("nan"), -0.1)),
        *((["best_miou"], v, "holds best_miou") for v in ("x", float("nan"), 7)),
        (["scaler"], {"scale": 1.0}, "holds an invalid scaler"),
        (["scaler"], "x", "holds an invalid scaler"),
        (["optimizer"], None, "has no optimizer state: start from its weights"),
        (["optimizer"], [1], "has no optimizer state"),
        (["optimizer"], {}, "has no optimizer state"),
        (["optimizer", "state"], [1], "has no optimizer state"),
        (["optimizer", "state", 36], None, "no optimizer state for this network's 37 parameters"),
        (["optimizer", "state", 0], [1], "the state of another optimizer"),
        (["optimizer", "state", 0], {"exp_avg": 1, "step": 1, "exp_avg_sq": 1}, "er (adamw)"),
        (MOMENTUM, 1.0, "weight that is not finite and of shape (16, 3, 3, 3)"),
        (MOMENTUM, torch.zeros(3, 16, 3, 3), "momentum_buffer of backbone"),
        (MOMENTUM, torch.zeros(16, 3, 3, 3).long(), "momentum_buffer of backbone"),
        (MOMENTUM, torch.zeros(16, 3, 3, 3).to_sparse(), "momentum_buffer of backbone"),
        (MOMENTUM, torch.zeros(16, 3, 3, 3, device="meta"), "momentum_buffer of backbone"),
        (MOMENTUM, torch.full((16, 3, 3, 3), torch.nan), "momentum_buffer of backbone"),
    ],
)  # fmt: skip
def test_each_malformed_field_is_reported(tiny: Path, path: list, value: object, part: str) -> None:
    run = SmallRun(tiny, channels_last=True)
    content = run.content()
    where = content
    for key in path[:-1]:
        where = where[key]
    if value is None:
        del where[path[-1]]
    else:
        where[path[-1]] = value
    with pytest.raises(CheckpointError, match=r"^c\.pth ") as error:
        run.restore(content)
    assert part in str(error.value)


def test_an_epoch_is_continued_with_the_same_images_alone(
    tiny: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = SmallRun(tiny, channels_last=True)
    run.step()
    middle = run.content()
    run.step()
    run.state.epoch, run.state.step_in_epoch = 1, 0
    end = run.content()
    lines = (tiny.parent / "data/train.txt").read_text().splitlines()
    (tiny.parent / "data/turned.txt").write_text("\n".join(lines[::-1]))
    for values, part in (
        ({"manual_seed": 7}, "TRAIN.manual_seed was 1 and is 7"),
        ({"train_list": str(tiny.parent / "data/turned.txt")}, "train_list has changed"),
        ({"batch_size": 1, "freeze_bn": True}, "TRAIN.batch_size was 2 and is 1"),
    ):
        with pytest.raises(ConfigError, match=f"saved within an epoch, but {part}: the rest"):
            SmallRun(tiny, channels_last=True, **values).restore(middle)
        caplog.clear()
        with caplog.at_level(logging.INFO):
            SmallRun(tiny, channels_last=True, **values).restore(end)
        assert f"{part} since c.pth was saved" in caplog.messages
    SmallRun(tiny, channels_last=True).restore(middle)
    with pytest.raises(UserError, match="after 1 steps of an epoch, but epochs now have 1:"):
        SmallRun(tiny, channels_last=True, batch_size=4).restore(middle)


def test_weights_that_are_not_finite_are_never_saved(tiny: Path) -> None:
    run = SmallRun(tiny, channels_last=True)
    run.step()
    with torch.no_grad():
        run.state.model.cls[4].bias[1] = torch.inf
    with pytest.raises(RunError, match=r"1 tensors hold infinite or NaN values \(cls\.4\.bias"):
        run.content()
    with torch.no_grad():
        run.state.model.cls[4].bias[1] = 0
        run.buffers()[0][1]["momentum_buffer"][0] = torch.nan
    with pytest.raises(RunError, match=r"\(momentum_buffer 0"):
        run.content()
