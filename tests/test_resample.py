"""Pooling and the convolution of enlarged maps by matrix products, against the operators they
replace: values, gradients, precisions, compiler, exporter, inference, several processes."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.psanet import PSANet
from model.pspnet import PSPNet
from model.resample import _cached, conv3x3_of_concat, pyramid_pool, upsample
from model.segmentor import Segmentor
from util.extra.golden import fill
from util.inference.network import inference_copy

BINS = (1, 2, 3, 6)
SIZES = [(9, 9), (12, 7), (5, 6), (1, 1), (2, 5), (31, 1)]


def plain(conv: nn.Conv2d, x: Tensor, maps: list[Tensor]) -> Tensor:
    return conv(torch.cat([x, *(upsample(m, x.shape[-2:]) for m in maps)], dim=1))


def inputs(size: tuple[int, int], dtype: torch.dtype, *, channels: int = 8) -> tuple:
    torch.manual_seed(0)
    x = torch.randn(2, channels, *size, dtype=dtype)
    maps = [torch.randn(2, channels, *s, dtype=dtype) for s in ((1, 1), (2, 2), (6, 6), (3, 4))]
    return nn.Conv2d(5 * channels, 6, 3, padding=1).to(dtype), x, maps


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("size", SIZES)
def test_equals_the_operators(size: tuple[int, int], memory_format: torch.memory_format) -> None:
    conv, x, maps = inputs(size, torch.float64)
    x = x.to(memory_format=memory_format)
    for b, pooled in zip(BINS, pyramid_pool(x, BINS), strict=True):
        torch.testing.assert_close(pooled, F.adaptive_avg_pool2d(x, b))
    found = conv3x3_of_concat(conv, x, maps)
    torch.testing.assert_close(found, plain(conv, x, maps))
    assert found.is_contiguous(memory_format=memory_format) or min(size) == 1


def test_gradcheck() -> None:
    conv, x, maps = inputs((5, 4), torch.float64, channels=2)
    x.requires_grad_()
    maps = [m.requires_grad_() for m in maps]

    def both(x: Tensor, weight: Tensor, *maps: Tensor) -> Tensor:
        conv.weight = nn.Parameter(weight)
        product = torch.func.functional_call(Of(conv), {"conv.weight": weight}, (x, *maps))
        return product, *pyramid_pool(x, BINS)

    class Of(nn.Module):
        def __init__(self, conv: nn.Conv2d) -> None:
            super().__init__()
            self.conv = conv

        def forward(self, x: Tensor, *maps: Tensor) -> Tensor:
            return conv3x3_of_concat(self.conv, x, maps)

    weight = conv.weight.detach().clone().requires_grad_()
    assert torch.autograd.gradcheck(both, (x, weight, *maps))


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_reduced_precision_is_as_near_as_the_plain_way(kind: torch.dtype) -> None:
    conv, x, maps = inputs((24, 24), torch.float32, channels=64)
    exact = plain(conv, x, maps)
    conv, x, maps = conv.to(kind), x.to(kind), [m.to(kind) for m in maps]
    errors = [
        (f(conv, x, maps).float() - exact).square().mean().sqrt()
        for f in (plain, conv3x3_of_concat)
    ]
    assert errors[1] < 2 * errors[0]
    for b, pooled in zip(BINS, pyramid_pool(x, BINS), strict=True):
        wanted = F.adaptive_avg_pool2d(x.float(), b)
        torch.testing.assert_close(pooled.float(), wanted, rtol=0, atol=0.01)


def network(kind: str, *, fused: bool, classes: int = 5) -> Segmentor:
    torch.manual_seed(0)
    if kind == "psp":
        return fill(PSPNet(layers=18, classes=classes, dropout=0, fused=fused), "resample")
    masks = {"mask_h": 9, "mask_w": 11}
    return fill(PSANet(layers=18, classes=classes, dropout=0, fused=fused, **masks), "resample")


@pytest.mark.parametrize("kind", ["psp", "psa"])
def test_a_network_is_the_same_either_way(kind: str) -> None:
    """Logits within 3e-6 of their spread in testing; losses and gradients in training."""
    image = torch.randn(2, 3, 65, 81)
    fused, stepwise = network(kind, fused=True), network(kind, fused=False)
    assert list(fused.state_dict()) == list(stepwise.state_dict())
    with torch.no_grad():
        a, b = (net.eval()(image).logits for net in (fused, stepwise))
    assert (a - b).abs().max() < 2e-5 * b.std()
    grads = []
    for net in (fused, stepwise):
        out = net.train()(image)
        (out.logits.square().mean() + out.aux.square().mean()).backward()
        grads.append({name: p.grad for name, p in net.named_parameters()})
    for name, grad in grads[0].items():
        other = grads[1][name]
        assert (grad - other).norm() <= 2e-3 * other.norm() + 1e-6, name


def test_inference_copies_with_folded_batchnorm_agree() -> None:
    image = torch.randn(1, 3, 65, 81)
    wanted = network("psp", fused=False).eval()
    wanted.upsamples = False
    with torch.inference_mode():
        copied = inference_copy(network("psp", fused=True), torch.device("cpu"))
        found = copied(image.contiguous(memory_format=torch.channels_last)).logits
        spread = wanted(image).logits.std()
        assert (found - wanted(image).logits).abs().max() < 1e-4 * spread
        half = inference_copy(network("psp", fused=True), torch.device("cpu"), amp="bf16")
        rough = half(image.bfloat16().contiguous(memory_format=torch.channels_last)).logits
        assert (rough.float() - found).abs().mean() < 0.05 * spread


def test_training_follows_testing_in_one_process() -> None:
    """Cached matrices must not be inference tensors, which autograd rejects."""
    _cached.cache_clear()
    net, image = network("psp", fused=True), torch.randn(2, 3, 33, 33)
    with torch.inference_mode():
        net.eval()(image)
    net.train()(image).logits.sum().backward()
    assert all(p.grad is not None for name, p in net.named_parameters() if "aux" not in name)


def test_autocast() -> None:
    net, image = network("psp", fused=True), torch.randn(2, 3, 65, 65)
    exact = net.train()(image).logits
    with torch.autocast("cpu", torch.bfloat16):
        rough = net(image).logits
    rough.float().sum().backward()
    assert (rough.float() - exact).abs().mean() < 0.05 * exact.std()


def test_no_values_no_cache() -> None:
    """Counting FLOPs on meta or fake tensors must not cache matrices for real ones."""
    _cached.cache_clear()
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        fake = torch.empty(1, 8, 7, 5)
        conv3x3_of_concat(nn.Conv2d(16, 6, 3, padding=1), fake, [torch.empty(1, 8, 2, 2)])
        pyramid_pool(fake, BINS)
    assert _cached.cache_info().currsize == 0
    conv, x, maps = inputs((7, 5), torch.float32)
    torch.testing.assert_close(conv3x3_of_concat(conv, x, maps), plain(conv, x, maps))


@pytest.mark.slow
def test_compiles_as_one_graph() -> None:
    net, image = network("psp", fused=True).eval(), torch.randn(1, 3, 33, 41)
    compiled = torch.compile(copy.deepcopy(net), backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(image).logits, net(image).logits)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["psp", "psa"])
def test_exports_as_one_graph(kind: str) -> None:
    net, image = network(kind, fused=True).eval(), torch.randn(2, 3, 33, 41)
    program = torch.export.export(net, (image,))
    with torch.no_grad():
        torch.testing.assert_close(program.module()(image).logits, net(image).logits)
