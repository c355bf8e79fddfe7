"""Training options: frozen BatchNorm, checkpointing, compiling, validation."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from model import build_model
from model.activation_checkpointing import checkpoint_activations
from tests.conftest import RunTool, assert_one_sentence
from tests.helpers.runs import records, weights
from util.config import load_config


def test_frozen_batch_norm_keeps_its_statistics(
    tiny: Path, tmp_path: Path, run_tool: RunTool
) -> None:
    assert run_tool("train", "--config", tiny)[0] == 0
    start = tmp_path / "run/model/train_epoch_1.pth"
    words = ["weight", start, "freeze_bn", True, "save_path", tmp_path / "b/model"]
    code, _, err = run_tool("train", "--config", tiny, *words, "batch_size", 1)
    assert code == 0, err  # then a single image is enough
    before, after = weights(start), weights(tmp_path / "b/model/train_epoch_1.pth")
    for name in before:
        is_kept = "running_" in name or name.endswith("num_batches_tracked")
        assert torch.equal(before[name], after[name]) == is_kept, name


def test_recomputed_activations_change_nothing(
    tiny: Path, tmp_path: Path, run_tool: RunTool
) -> None:
    for name, flag in (("a", False), ("b", True)):
        words = ["save_path", tmp_path / name / "model", "activation_checkpointing", flag]
        assert run_tool("train", "--config", tiny, *words)[0] == 0
    one, other = (weights(tmp_path / n / "model/train_epoch_1.pth") for n in "ab")
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_recomputing_saves_memory(tiny: Path) -> None:
    def kept(is_on: bool) -> int:
        """Measure the bytes autograd saves for the backward pass."""
        model = build_model(load_config(tiny))
        if is_on:
            checkpoint_activations(model)
        found: dict[int, int] = {}

        def pack(x: Tensor) -> Tensor:
            found[x.data_ptr()] = x.numel() * x.element_size()
            return x

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            model.train()(torch.zeros(2, 3, 65, 65))
        return sum(found.values()) - sum(p.numel() * 4 for p in model.parameters())

    assert kept(True) < 0.75 * kept(False)


def test_compiling_and_recomputing_exclude_each_other(tiny: Path, run_tool: RunTool) -> None:
    words = ["TRAIN.compile", True, "activation_checkpointing", True]
    code, _, err = run_tool("train", "--config", tiny, *words)
    assert_one_sentence(code, err, "TRAIN.compile True", "activation_checkpointing True")


@pytest.mark.slow
def test_a_compiled_network_learns_the_same(
    tiny: Path, tmp_path: Path, run_tool: RunTool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Traced by torch.compile, but without its C++ compiler, which takes minutes."""
    traced = []

    def compiled(self: nn.Module) -> None:
        traced.append(self)
        self._compiled_call_impl = torch.compile(self._call_impl, backend="aot_eager")

    monkeypatch.setattr(nn.Module, "compile", compiled)
    for name, flag in (("a", False), ("b", True)):
        words = ["save_path", tmp_path / name / "model", "TRAIN.compile", flag, "evaluate", True]
        code, _, err = run_tool("train", "--config", tiny, *words)
        assert code == 0, err
    assert len(traced) == 1
    one, other = records(tmp_path / "a")[0], records(tmp_path / "b")[0]
    assert other["train_loss"] == pytest.approx(one["train_loss"], rel=1e-3)
    names = (weights(tmp_path / n / "model/train_epoch_1.pth").keys() for n in "ab")
    assert next(names) == next(names)


def test_validation_by_the_protocol_of_the_test(
    tiny: Path, tmp_path: Path, run_tool: RunTool
) -> None:
    words = ["evaluate", True, "val_protocol", "test", "scales", "[0.5, 1]"]
    code, _, err = run_tool("train", "--config", tiny, *words)
    assert code == 0, err
    assert run_tool("test", "--config", tiny, "scales", "[0.5, 1]")[0] == 0
    (scores,) = (tmp_path / "run/result").rglob("scores.json")
    wanted, found = json.loads(scores.read_text()), records(tmp_path / "run")[0]["val"]
    for name in ("miou", "macc", "aacc", "iou_class"):
        assert found[name] == wanted[name], name
