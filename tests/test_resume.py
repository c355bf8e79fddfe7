"""Resuming: the optimizer's buffers in every layout, and every field of a checkpoint checked."""

import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from model import build_model
from util.config import Config, load_config
from util.data.dataset import build_loader
from util.distributed import Process
from util.error import CheckpointError, ConfigError, RunError, UserError
from util.training.checkpoint import Checkpoint
from util.training.loss import build_loss
from util.training.resume import _check, restore_state
from util.training.state import State, checkpoint_content, order_of, start_state
from util.training.step import train_mode, train_step

OPTIMIZERS = ("sgd", "adamw")


class Run:
    """A network of the tiny recipe, and steps of it on fixed data."""

    def __init__(self, tiny: Path, **values: object) -> None:
        self.cfg: Config = replace(load_config(tiny), **{"channels_last": True, **values})
        torch.manual_seed(0)
        loader = build_loader(self.cfg, is_training=True)
        self.order = order_of(self.cfg, loader.data.samples)
        self.state: State = start_state(
            self.cfg, Process(), build_model(self.cfg), steps_per_epoch=len(loader)
        )
        train_mode(self.state.model, freeze_bn=False)

    def step(self) -> None:
        generator = torch.Generator().manual_seed(self.state.step)
        image = torch.randn(2, 3, 33, 33, generator=generator)
        label = torch.randint(0, 3, (2, 33, 33), generator=generator)
        criterion = build_loss("ce", ignore_label=255, aux_weight=0.4)
        train_step(self.cfg, Process(), self.state, criterion, image, label)

    def content(self) -> dict:
        """As it comes out of a file: no tensor shared with the run."""
        path = Path(self.cfg.save_path).with_suffix(".pth")
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(checkpoint_content(self.state, self.cfg, self.order), path)
        return torch.load(path, weights_only=True)

    def restore(self, content: dict) -> None:
        self.state.model.load_state_dict(content["state_dict"])
        _check(Checkpoint("c.pth", content))
        restore_state(self.state, self.cfg, Checkpoint("c.pth", content), self.order)

    def weights(self) -> list[Tensor]:
        return [p.detach().clone() for p in self.state.model.parameters()]

    def buffers(self) -> list[tuple[Tensor, dict[str, Tensor]]]:
        return list(self.state.optimizer.state.items())


def equal(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_momentum_lies_in_memory_as_its_parameter(tiny: Path) -> None:
    """As CUDA's fused kernel demands; after one step without decay it is the gradient."""
    run = Run(tiny, weight_decay=0.0)
    run.step()
    assert len(run.buffers()) == 91
    for parameter, buffers in run.buffers():
        momentum = buffers["momentum_buffer"]
        assert momentum.stride() == parameter.stride()
        assert torch.equal(momentum, parameter.grad)


@pytest.mark.parametrize("saved_in", [True, False])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_resumed_state_is_the_same_to_the_bit(tiny: Path, optimizer: str, saved_in: bool) -> None:
    """Whichever memory layout the file was written from."""
    whole = Run(tiny, optimizer=optimizer, channels_last=saved_in, warmup_steps=1)
    whole.step()
    content = whole.content()
    run = Run(tiny, optimizer=optimizer, warmup_steps=1)
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


def test_momentum_of_the_first_edition_is_put_in_order(tiny: Path) -> None:
    """It was stored in the order of the weight's memory, but with strides of another layout."""
    whole = Run(tiny)
    whole.step()
    content = whole.content()
    changed = 0
    for buffers in content["optimizer"]["state"].values():
        value = buffers["momentum_buffer"]
        flat = value.permute(0, 2, 3, 1) if value.dim() == 4 else value
        buffers["momentum_buffer"] = flat.contiguous().view(value.shape)
        changed += not torch.equal(buffers["momentum_buffer"], value)
    assert changed == 21
    run = Run(tiny)
    run.restore(content)
    for one in (whole, run):
        one.step()
    assert equal(whole.weights(), run.weights())


def test_momentum_may_be_switched_on_and_off(tiny: Path, caplog: pytest.LogCaptureFixture) -> None:
    with_momentum, without = Run(tiny), Run(tiny, momentum=0.0)
    with_momentum.step()
    without.step()
    Run(tiny, momentum=0.0).restore(with_momentum.content())
    with caplog.at_level(logging.INFO):
        Run(tiny).restore(without.content())
    assert "c.pth was saved without momentum, which starts at 0" in caplog.messages


def test_a_step_counts_towards_adamw_only_if_it_is_taken(tiny: Path) -> None:
    run = Run(tiny, optimizer="adamw")
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
        (["optimizer", "state", 90], None, "no optimizer state for this network's 91 parameters"),
        (["optimizer", "state", 0], [1], "the state of another optimizer"),
        (["optimizer", "state", 0], {"exp_avg": 1, "step": 1, "exp_avg_sq": 1}, "er (adamw)"),
        (MOMENTUM, 1.0, "a momentum_buffer of layer0.0.weight that is no (64, 3, 3, 3) of finite"),
        (MOMENTUM, torch.zeros(3, 64, 3, 3), "a momentum_buffer of layer0.0.weight"),
        (MOMENTUM, torch.zeros(64, 3, 3, 3).long(), "a momentum_buffer of layer0.0.weight"),
        (MOMENTUM, torch.zeros(64, 3, 3, 3).to_sparse(), "a momentum_buffer of layer0.0.weight"),
        (MOMENTUM, torch.zeros(64, 3, 3, 3, device="meta"), "a momentum_buffer of layer0"),
        (MOMENTUM, torch.full((64, 3, 3, 3), torch.nan), "a momentum_buffer of layer0.0.weight"),
    ],
)  # fmt: skip
def test_each_malformed_field_is_a_sentence(
    tiny: Path, path: list, value: object, part: str
) -> None:
    run = Run(tiny)
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
    run = Run(tiny)
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
            Run(tiny, **values).restore(middle)
        caplog.clear()
        with caplog.at_level(logging.INFO):
            Run(tiny, **values).restore(end)
        assert f"{part} since c.pth was saved" in caplog.messages
    Run(tiny).restore(middle)
    with pytest.raises(UserError, match="after 1 steps of an epoch, which has 1 now"):
        Run(tiny, batch_size=4).restore(middle)


def test_weights_that_are_not_finite_are_never_saved(tiny: Path) -> None:
    run = Run(tiny)
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
