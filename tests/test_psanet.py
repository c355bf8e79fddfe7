"""psa_mask against its index formula as a loop, gradients, precisions, compiler, exporter."""

import pytest
import torch
from torch import Tensor

from model.psa import PSA, psa_mask


def loop(logits: Tensor, mask_h: int, mask_w: int) -> Tensor:
    """The index formula, position by position."""
    n, _, height, width = logits.shape
    out = logits.new_zeros(n, height * width, height * width)
    for h in range(height):
        for w in range(width):
            for i in range(mask_h):
                for j in range(mask_w):
                    y, x = h + i - mask_h // 2, w + j - mask_w // 2
                    if 0 <= y < height and 0 <= x < width:
                        out[:, y * width + x, h * width + w] = logits[:, i * mask_w + j, h, w]
    return out


SIZES = [
    # mask, map: full, small, larger than needed, even, not square, a single position
    ((9, 9), (5, 5)),
    ((3, 5), (5, 6)),
    ((13, 11), (4, 3)),
    ((4, 2), (5, 5)),
    ((1, 1), (3, 4)),
    ((7, 3), (1, 1)),
]


@pytest.mark.parametrize("kind", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("mask", "size"), SIZES)
def test_equals_the_loop_to_the_bit(mask: tuple, size: tuple, kind: torch.dtype) -> None:
    logits = torch.randn(2, mask[0] * mask[1], *size).to(kind)
    assert torch.equal(psa_mask(logits, *mask), loop(logits, *mask))


@pytest.mark.parametrize(("mask", "size"), SIZES)
def test_gradients(mask: tuple, size: tuple) -> None:
    logits = torch.randn(1, mask[0] * mask[1], *size, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: psa_mask(x, *mask), (logits,))


def make_psa(**changes: object) -> PSA:
    arguments = {
        "psa_type": 2,
        "compact": False,
        "shrink_factor": 2,
        "mask_h": 5,
        "mask_w": 7,
        "normalization_factor": None,
        "psa_softmax": True,
        "reduced": 8,
    }
    torch.manual_seed(0)
    return PSA(16, **{**arguments, **changes}).eval()


def test_distribute_is_the_transpose_of_collect() -> None:
    """What p distributes to q equals what q collects from p."""
    psa = make_psa(psa_softmax=False)
    psa.reduce_p.load_state_dict(psa.reduce.state_dict())
    psa.attention_p.load_state_dict(psa.attention.state_dict())
    (_, collect), (_, distribute) = psa.branches(torch.randn(1, 16, 5, 7))
    assert torch.equal(distribute, collect.transpose(1, 2))


@pytest.mark.parametrize("psa_type", [0, 1, 2])
@pytest.mark.parametrize("shrink_factor", [1, 2])
@pytest.mark.parametrize("psa_softmax", [True, False])
def test_attention_sums_up_as_the_paper_says(
    psa_type: int, shrink_factor: int, psa_softmax: bool
) -> None:
    psa = make_psa(psa_type=psa_type, shrink_factor=shrink_factor, psa_softmax=psa_softmax)
    x = torch.randn(2, 16, 5, 7)
    assert psa(x).shape == (2, 16, *{1: (5, 7), 2: (3, 4)}[shrink_factor])
    branches = psa.branches(x)
    assert len(branches) == (2 if psa_type == 2 else 1)
    for _, weights in branches:
        positions = {1: 5 * 7, 2: 3 * 4}[shrink_factor]
        assert weights.shape == (2, positions, positions)
        if psa_softmax:
            torch.testing.assert_close(weights.sum(1), torch.ones_like(weights.sum(1)))
    assert psa.normalization_factor == 35


def test_compact_takes_channels_as_positions() -> None:
    psa = make_psa(compact=True, mask_h=3, mask_w=4, psa_softmax=False)
    x = torch.randn(1, 16, 5, 7)
    features, weights = psa.branches(x)[0]
    assert torch.equal(weights, psa.attention(features).flatten(2))


def test_compiles_to_the_same_numbers() -> None:
    pytest.importorskip("torch._dynamo")
    logits = torch.randn(2, 35, 4, 5)
    compiled = torch.compile(lambda x: psa_mask(x, 5, 7), backend="aot_eager", fullgraph=True)
    assert torch.equal(compiled(logits), psa_mask(logits, 5, 7))


def test_exports_as_one_graph() -> None:
    """torch.export is the first half of the ONNX exporter: psa_mask must be traceable."""

    class Mask(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return psa_mask(x, 5, 7)

    logits = torch.randn(2, 35, 4, 5)
    program = torch.export.export(Mask(), (logits,))
    assert torch.equal(program.module()(logits), psa_mask(logits, 5, 7))
