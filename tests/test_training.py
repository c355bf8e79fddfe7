"""The options of training: each keeps its promise; what ends a run says so in a sentence."""

import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import tool.train
import util.training.step
from model import build_model
from model.activation_checkpointing import checkpoint_activations
from tests.conftest import RunTool, assert_one_sentence
from util.checkpoint import checkpoints
from util.config import load_config
from util.data.label import read_label, write_label
from util.distributed import Process
from util.error import RunError
from util.training import CheckpointSaver, NonfiniteCheck, start_state, train_mode, train_step
from util.training.loss import CrossEntropy, SegmentationLoss, segmentation_loss
from util.training.nonfinite import Statistics


def records(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "model/metrics.jsonl").open()]


def weights(path: Path) -> dict[str, Tensor]:
    return torch.load(path, weights_only=True)["state_dict"]


def test_frozen_batch_norm_keeps_its_statistics(
    tiny: Path, tmp_path: Path, run_tool: RunTool
) -> None:
    assert run_tool("train", "--config", tiny)[0] == 0
    start = tmp_path / "run/model/train_epoch_1.pth"
    words = ["weight", start, "freeze_bn", True, "save_path", tmp_path / "b/model"]
    code, _, err = run_tool("train", "--config", tiny, *words, "batch_size", 1)
    assert code == 0, err  # one image at a time is enough then
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
        """Bytes that autograd holds for the backward pass."""
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


def test_a_compiled_network_learns_the_same(
    tiny: Path, tmp_path: Path, run_tool: RunTool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Traced as torch.compile does, but without its C++ compiler, which takes minutes."""
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


def test_fp16_with_its_scaler_is_resumed_exactly(
    tiny: Path, tmp_path: Path, run_tool: RunTool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forced, as a CPU without fp16 arithmetic would take float32 instead."""
    monkeypatch.setattr("util.training.state.usable_amp", lambda kind, device: kind)
    monkeypatch.setattr("util.checkpoint.KEEP", 99)
    words = ["--config", tiny, "TRAIN.amp", "fp16", "epochs", 3, "save_path"]
    assert run_tool("train", *words, tmp_path / "whole/model")[0] == 0
    first = tmp_path / "whole/model/train_epoch_1.pth"
    scaler = torch.load(first, weights_only=True)["scaler"]
    # Two steps, each of which either counts towards growth or halves the scale.
    assert scaler["scale"] < 65536 or scaler["_growth_tracker"] == 2
    (tmp_path / "part/model").mkdir(parents=True)
    (tmp_path / "part/model" / first.name).write_bytes(first.read_bytes())
    code, _, err = run_tool("train", *words, tmp_path / "part/model", "resume", "auto")
    assert code == 0, err
    one, other = (
        torch.load(tmp_path / name / "model/train_epoch_3.pth", weights_only=True)
        for name in ("whole", "part")
    )
    assert one["scaler"] == other["scaler"] != scaler
    assert all(torch.equal(v, other["state_dict"][k]) for k, v in one["state_dict"].items())
    assert all(value.isfinite().all() for value in one["state_dict"].values())


# Losses that are not finite -----------------------------------------------------------------------


def one_step(
    tiny: Path, criterion: SegmentationLoss, **values: object
) -> tuple[dict, dict, NonfiniteCheck]:
    """Weights, statistics and momenta before and after a second step with this criterion."""
    cfg = replace(load_config(tiny), batch_size=2, **values)
    torch.manual_seed(0)
    network, process = build_model(cfg), Process()
    groups = network.param_groups()
    state = start_state(cfg, process, network, groups, steps_per_epoch=9, say=print)
    train_mode(state.model, freeze_bn=False)
    nonfinite = NonfiniteCheck(
        process, kind=cfg.nonfinite, names_of=lambda step: [["a.png", "b.png"]], warn=print
    )
    image, label = torch.randn(2, 3, 33, 33), torch.randint(0, 3, (2, 33, 33))

    def everything() -> dict:
        momenta = [s["momentum_buffer"].clone() for s in state.optimizer.state.values()]
        weights = {name: value.clone() for name, value in network.state_dict().items()}
        return {**weights, **dict(enumerate(momenta))}

    plain = SegmentationLoss(CrossEntropy(255), CrossEntropy(255), 0.4)
    step = (cfg, process, state, image, label)
    train_step(*step, criterion=plain, nonfinite=nonfinite, total_steps=9)
    before = everything()
    train_step(*step, criterion=criterion, nonfinite=nonfinite, total_steps=9)
    return before, everything(), nonfinite


def poisoned(logits: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    total, weight = CrossEntropy(255)(logits, label)
    return total * torch.inf, weight


def test_a_step_that_is_not_finite_leaves_no_trace(
    tiny: Path, capsys: pytest.CaptureFixture
) -> None:
    criterion = SegmentationLoss(poisoned, CrossEntropy(255), 0.4)
    before, after, nonfinite = one_step(tiny, criterion, nonfinite="skip")
    for name, value in before.items():
        if not str(name).endswith("num_batches_tracked"):
            assert torch.equal(value, after[name]), name
    nonfinite.look()
    assert nonfinite.skipped == 1
    out = capsys.readouterr().out
    assert "the loss of step 2 is not finite (images a.png, b.png): step left out" in out


def test_by_default_such_a_step_ends_the_run(tiny: Path) -> None:
    nonfinite = one_step(tiny, SegmentationLoss(poisoned, CrossEntropy(255), 0.4))[2]
    with pytest.raises(RunError, match=r"step 2 is not finite \(images a\.png, b\.png\): lower TR"):
        nonfinite.look()


def test_a_run_that_diverges(tiny: Path, tmp_path: Path, run_tool: RunTool) -> None:
    words = ["--config", tiny, "epochs", 9, "base_lr", 1e12]
    code, _, err = run_tool("train", *words)
    assert_one_sentence(code, err, "is not finite (images p", "lower TRAIN.base_lr", "skip")
    for path in checkpoints(tmp_path / "run/model"):
        assert all(v.isfinite().all() for v in weights(path).values()), path
    words += ["nonfinite", "skip", "save_path", tmp_path / "b/model"]
    code, _, err = run_tool("train", *words)
    assert_one_sentence(
        code, err, "no step of this epoch", "has diverged", "base_lr (1000000000000.0"
    )


def test_images_without_any_label_do_no_harm(tiny: Path, tmp_path: Path, run_tool: RunTool) -> None:
    for path in (tmp_path / "data/labels").iterdir():
        write_label(path, np.full_like(read_label(path), 255))
    code, _, err = run_tool("train", "--config", tiny, "evaluate", True)
    assert code == 0, err
    assert records(tmp_path / "run")[0]["train_loss"] == 0
    found = weights(tmp_path / "run/model/train_epoch_1.pth")
    assert all(value.isfinite().all() for value in found.values())


def test_labels_of_a_step_weigh_alike_in_all_parts() -> None:
    """Parts with unlike numbers of labelled pixels add up to the loss of the whole."""
    logits, aux = torch.randn(4, 3, 5, 5), torch.randn(4, 3, 5, 5)
    label = torch.randint(0, 3, (4, 5, 5))
    label[0], label[1, :4] = 255, 255
    whole = segmentation_loss(logits, aux, label, ignore_label=255, aux_weight=0.4)
    criterion = SegmentationLoss(CrossEntropy(255), CrossEntropy(255), 0.4)
    weight = criterion.main.weight(label).repeat(2)
    parts = [
        torch.stack(criterion(*part, over_all=lambda w: weight))
        for part in zip(logits.chunk(2), aux.chunk(2), label.chunk(2), strict=True)
    ]
    torch.testing.assert_close(sum(parts), torch.stack(whole))


def test_guard_and_resume_cost_less_than_a_percent_of_a_step(
    tiny: Path, run_tool: RunTool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All they do within a step, timed where they do it; medians over the steps."""
    steps = []

    def timed(owner: object, name: str, times: list[float]) -> None:
        plain = getattr(owner, name)

        def call(*args: object, **more: object) -> object:
            start = time.perf_counter()
            try:
                return plain(*args, **more)
            finally:
                times.append(time.perf_counter() - start)

        monkeypatch.setattr(owner, name, call)

    timed(tool.train, "train_step", steps)
    names = [(util.training.step, "seed_step"), (util.training.step, "Statistics")]
    names += [(Statistics, "go_back_if"), (NonfiniteCheck, "check"), (NonfiniteCheck, "look")]
    names += [(CheckpointSaver, "after_step")]
    parts = {name: [] for _, name in names}
    for owner, name in names:
        timed(owner, name, parts[name])
    words = ["train_h", 97, "train_w", 97, "batch_size", 2, "epochs", 5, "save_freq", 9]
    assert run_tool("train", "--config", tiny, *words, "save_every_steps", 1000)[0] == 0
    assert len(steps) == 10 and all(parts[name] for name in parts)
    medians = {name: float(np.median(times)) for name, times in parts.items()}
    extra = sum(medians.values())
    print(f"{extra:.4f} s of {np.median(steps):.4f} s: {medians}")
    assert extra < 0.01 * float(np.median(steps)), (medians, np.median(steps))
