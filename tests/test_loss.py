"""Losses against plain loops over pixels: cross entropy, class weights, OHEM."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.conftest import RunTool, assert_one_sentence
from tool.train import make_criterion
from util.config import load_config
from util.data.dataset import build_loader
from util.data.image import read_label, write_label
from util.distributed import Process
from util.training.loss import (
    CrossEntropy,
    OhemCrossEntropy,
    SegmentationLoss,
    build_loss,
    label_at,
)

IGNORED = 255
Batch = tuple[Tensor, Tensor, Tensor]


@pytest.fixture
def batch() -> Batch:
    """(logits, aux, label): (2, 4, 5, 6) twice and (2, 5, 6), a fifth of it ignored."""
    generator = torch.Generator().manual_seed(0)
    logits, aux = (3 * torch.randn(2, 4, 5, 6, generator=generator) for _ in range(2))
    label = torch.randint(0, 4, (2, 5, 6), generator=generator)
    label[torch.rand(label.shape, generator=generator) < 0.2] = IGNORED
    return logits, aux, label


def pixels(logits: Tensor, label: Tensor) -> list[tuple[float, int]]:
    """Return (probability of its class, class) of each labelled pixel, in float64."""
    found = []
    for n, y, x in np.ndindex(*label.shape):
        if label[n, y, x] != IGNORED:
            scores = logits[n, :, y, x].double().numpy()
            shares = np.exp(scores - scores.max())
            found.append((shares[label[n, y, x]] / shares.sum(), int(label[n, y, x])))
    return found


def mean_loss(chosen: list[tuple[float, int]], weights: list[float] | None = None) -> float:
    weights = weights or [1.0] * 4
    total = sum(weights[i] for _, i in chosen)
    return sum(-weights[i] * np.log(p) for p, i in chosen) / total if total else 0.0


def mean(loss: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], *batch: Tensor) -> Tensor:
    """Return a head's mean loss over this batch."""
    total, weight, _ = loss(*batch)
    return total / weight if weight > 0 else total


def hard_pixels(logits: Tensor, label: Tensor, threshold: float, kept: int) -> list:
    """Select hard pixels by sorting: all up to the threshold, but at least `kept`."""
    ordered = sorted(pixels(logits, label))
    return [pixel for k, pixel in enumerate(ordered) if pixel[0] <= threshold or k < kept]


def test_cross_entropy_is_the_mean_over_labelled_pixels(batch: Batch) -> None:
    logits, aux, label = batch
    total, main, side = build_loss("ce", ignore_label=IGNORED, aux_weight=0.4)(batch[:2], label)
    assert main.item() == pytest.approx(mean_loss(pixels(logits, label)), rel=1e-5)
    assert side.item() == pytest.approx(mean_loss(pixels(aux, label)), rel=1e-5)
    assert total.item() == pytest.approx(main.item() + 0.4 * side.item())


def test_the_default_is_the_plain_formula(batch: Batch) -> None:
    count = (batch[2] != IGNORED).sum().clamp(min=1)
    wanted = [
        F.cross_entropy(x.float(), batch[2], ignore_index=IGNORED, reduction="sum") / count
        for x in batch[:2]
    ]
    losses = build_loss("ce", ignore_label=IGNORED, aux_weight=0.4)(batch[:2], batch[2])
    expected = torch.stack([wanted[0] + 0.4 * wanted[1], *wanted])
    torch.testing.assert_close(losses, expected, rtol=1e-6, atol=0)


def test_full_size_logits_give_the_plain_formula_exactly(batch: Batch) -> None:
    heads, label = batch[:2], batch[2]
    for weights in (None, torch.tensor([1.0, 2.0, 3.0, 4.0])):
        criterion = build_loss("ce", ignore_label=IGNORED, aux_weight=0.4, weights=weights)
        main, side = (
            F.cross_entropy(x, label, weight=weights, ignore_index=IGNORED, reduction="sum")
            / criterion.main.weight(label)
            for x in heads
        )
        assert torch.equal(criterion(heads, label), torch.stack([main + 0.4 * side, main, side]))


@pytest.mark.parametrize(
    "loss",
    [
        CrossEntropy(IGNORED),
        CrossEntropy(IGNORED, torch.tensor([1.0, 2, 3, 4])),
        OhemCrossEntropy(IGNORED, 0.7, 10),
        OhemCrossEntropy(IGNORED, 0.7, 10, torch.tensor([1.0, 2, 3, 4])),
    ],
)
def test_a_batch_without_labels_has_loss_and_gradients_of_zero(
    batch: Batch, loss: Callable[[Tensor, Tensor], Tensor]
) -> None:
    logits = batch[0].requires_grad_()
    label = torch.full_like(batch[2], IGNORED)
    value = SegmentationLoss(loss, loss, 0.4)([logits, logits], label)[0]
    value.backward()
    assert value.item() == 0 and not logits.grad.any()


def test_class_weights_weight_the_mean(batch: Batch) -> None:
    logits, _, label = batch
    for weights in ([1.0, 2.0, 0.5, 7.0], [0.0, 1.0, 0.0, 3.0]):
        loss = mean(CrossEntropy(IGNORED, torch.tensor(weights)), logits, label)
        assert loss.item() == pytest.approx(mean_loss(pixels(logits, label), weights), rel=1e-5)
    even = mean(CrossEntropy(IGNORED, torch.full((4,), 3.0)), logits, label)
    torch.testing.assert_close(even, mean(CrossEntropy(IGNORED), logits, label))
    no_weight = CrossEntropy(IGNORED, torch.tensor([0.0, 0, 0, 1]))
    nothing = mean(no_weight, logits, label.clamp(max=2))
    assert nothing.item() == 0


@pytest.mark.parametrize("weights", [None, [1.0, 2.0, 0.5, 7.0]])
@pytest.mark.parametrize("kept", [1, 7, 30, 48, 60, 100000])
@pytest.mark.parametrize("threshold", [1e-4, 0.3, 0.7, 1.0])
def test_ohem_agrees_with_sorting(
    batch: Batch, threshold: float, kept: int, weights: list[float] | None
) -> None:
    logits, _, label = batch
    tensor = None if weights is None else torch.tensor(weights)
    logits = logits.clone().requires_grad_()
    loss = mean(OhemCrossEntropy(IGNORED, threshold, kept, tensor), logits, label)
    chosen = hard_pixels(logits.detach(), label, threshold, kept)
    assert loss.item() == pytest.approx(mean_loss(chosen, weights), rel=1e-5)
    loss.backward()
    assert logits.grad.abs().sum(1).count_nonzero() == len(chosen)


def test_ohem_applies_to_the_main_head_only(batch: Batch) -> None:
    logits, aux, label = batch
    criterion = build_loss(
        "ohem", ignore_label=IGNORED, aux_weight=0.4, ohem_threshold=0.5, ohem_min_kept=5
    )
    _, main, side = criterion(batch[:2], label)
    assert main.item() == pytest.approx(mean_loss(hard_pixels(logits, label, 0.5, 5)), rel=1e-5)
    assert side.item() == pytest.approx(mean_loss(pixels(aux, label)), rel=1e-5)


def test_losses_are_in_float32_and_know_large_ignore_labels(batch: Batch) -> None:
    logits, _, label = batch
    label = torch.where(label == IGNORED, 65535, label)
    weights = torch.tensor([1.0, 2.0, 0.5, 7.0])
    for loss in (CrossEntropy(65535, weights), OhemCrossEntropy(65535, 0.7, 5, weights)):
        assert loss(logits.bfloat16(), label)[0].dtype == torch.float32


def test_labels_are_sampled_at_the_size_of_the_logits() -> None:
    label = torch.arange(17 * 17).view(1, 17, 17)
    assert torch.equal(label_at(label, (17, 17)), label)
    assert torch.equal(label_at(label, (3, 9)), label[:, ::8, ::2])
    # Other sizes: the pixel nearest to each centre.
    label = torch.arange(6 * 8).view(1, 6, 8)
    assert label_at(label, (3, 4)).tolist() == [
        [[9, 11, 13, 15], [25, 27, 29, 31], [41, 43, 45, 47]]
    ]
    assert label_at(label, (1, 1)).tolist() == [[[28]]]
    nearest = F.interpolate(label[None].double(), (5, 7), mode="nearest-exact")[0].long()
    assert torch.equal(label_at(label, (5, 7)), nearest)


def test_auxiliary_heads_have_sizes_and_scales_of_their_own(batch: Batch) -> None:
    logits, _, label = batch
    heads = [logits, logits[..., ::2, ::5], logits[..., ::4, ::5]]
    criterion = build_loss("ce", ignore_label=IGNORED, aux_weight=0.4, aux_scales=(1.0, 0.4))
    total, main, side = criterion(heads, label)
    one, other = (
        mean_loss(pixels(head, picked))
        for head, picked in zip(heads[1:], (label[:, ::2, ::5], label[:, ::4, ::5]), strict=True)
    )
    assert main.item() == pytest.approx(mean_loss(pixels(logits, label)), rel=1e-5)
    assert side.item() == pytest.approx(one + 0.4 * other, rel=1e-5)
    assert total.item() == pytest.approx(main.item() + 0.4 * side.item(), rel=1e-5)
    alone = build_loss("ce", ignore_label=IGNORED, aux_weight=0.4, aux_scales=())
    assert alone([logits], label).tolist() == pytest.approx([main.item(), main.item(), 0])


def test_micro_batches_add_up_to_the_loss_of_the_step() -> None:
    """Also with different numbers of labelled pixels."""
    heads = [torch.randn(4, 3, 5, 5), torch.randn(4, 3, 3, 3)]
    label = torch.randint(0, 3, (4, 5, 5))
    label[0], label[1, :4] = IGNORED, IGNORED
    for weights in (None, torch.tensor([1.0, 2.0, 0.5])):
        criterion = build_loss("ce", ignore_label=IGNORED, aux_weight=0.4, weights=weights)
        sizes = [logits.shape[-2:] for logits in heads]
        divisors = criterion.weights(label, sizes)
        parts = [
            criterion.losses(criterion.sums(part, y, sizes)[0], divisors)
            for *part, y in zip(*(x.chunk(2) for x in (*heads, label)), strict=True)
        ]
        torch.testing.assert_close(sum(parts), criterion(heads, label))


def test_the_trainer_builds_the_loss_of_its_config(tiny: Path, tmp_path: Path) -> None:
    def criterion(*words: str) -> SegmentationLoss:
        cfg = load_config(tiny, words)
        data = build_loader(cfg, is_training=True).data
        return make_criterion(cfg, Process(), (1.0,), data)

    assert criterion() == SegmentationLoss(CrossEntropy(IGNORED), CrossEntropy(IGNORED), 0.4)
    ohem = criterion("TRAIN.loss", "ohem").main
    assert isinstance(ohem, OhemCrossEntropy)
    assert (ohem.threshold, ohem.min_kept) == (0.7, 100000)  # over all processes
    (tmp_path / "w.json").write_text(json.dumps({"class_weights": [1, 2, 3]}))
    for setting in ("[1, 2, 3]", str(tmp_path / "w.json")):
        loss = criterion("TRAIN.class_weights", setting)
        assert loss.main.weights.tolist() == loss.aux.weights.tolist() == [1, 2, 3]
    weights = criterion("TRAIN.class_weights", "median").main.weights
    assert weights.median() == 1 and len(weights) == 3


def test_training_with_all_loss_options(tiny: Path, run_tool: RunTool) -> None:
    for path in (tiny.parent / "data/labels").iterdir():
        write_label(path, read_label(path) + 1)  # 1..3; 255 wraps to 0
    words = ["TRAIN.loss", "ohem", "TRAIN.ohem_min_kept", "100", "TRAIN.class_weights", "median"]
    words += ["DATA.label_map", "{1: 0, 2: 1, 3: 2, 0: 255}"]
    code, _, err = run_tool("train", "--config", tiny, *words)
    assert code == 0, err


def test_losses_that_cannot_be_built(tiny: Path, run_tool: RunTool) -> None:
    refused = {
        ("TRAIN.class_weights", "[1, 2]"): "TRAIN.class_weights holds 2 numbers",
        ("TRAIN.class_weights", "[1, 2, -3]"): "TRAIN.class_weights must be at least 0, got -3",
        ("TRAIN.class_weights", "none.json"): "none.json does not exist",
        ("TRAIN.loss", "ohen"): "TRAIN.loss must be one of ce, ohem, got ohen; nearest: ohem",
    }
    for words, part in refused.items():
        code, _, err = run_tool("train", "--config", tiny, *words)
        assert_one_sentence(code, err, part)
