"""Convolutions by Winograd's algorithm against PyTorch's, and where inference uses them."""

import numpy as np
import pytest
import torch
from torch import nn

from model.pspnet import PSPNet
from tests.helpers.networks import smooth
from util.inference import SlidingPredictor
from util.inference.network import inference_copy
from util.inference.winograd import WinogradConv2d, is_suitable

CPU = torch.device("cpu")


def convolution(inputs: int = 256, outputs: int = 256, *, dilation: int = 1, **more) -> nn.Conv2d:
    torch.manual_seed(0)
    more = {"padding": dilation, "dilation": dilation} | more
    return nn.Conv2d(inputs, outputs, more.pop("kernel_size", 3), **more)


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (7, 5), (12, 9), (1, 40), (30, 31)])
@pytest.mark.parametrize("dilation", [1, 2, 4, 6])
def test_equals_the_operator(size: tuple[int, int], dilation: int) -> None:
    conv = convolution(260, 300, dilation=dilation)
    x = torch.randn(2, 260, *size)
    with torch.inference_mode():
        exact = conv.double()(x.double())
        conv.float()
        error = (conv(x) - exact).abs().max()
        assert (WinogradConv2d(conv)(x) - exact).abs().max() < 4 * error + 1e-6
        twofold = WinogradConv2d(conv.double())(x.double())
        torch.testing.assert_close(twofold, exact, rtol=0, atol=1e-12)


@pytest.mark.parametrize("bias", [True, False])
def test_any_block_size_and_memory_format(monkeypatch: pytest.MonkeyPatch, bias: bool) -> None:
    """Large maps are computed in blocks of rows: here down to one row of tiles."""
    conv = convolution(bias=bias)
    x = torch.randn(2, 256, 11, 13)
    with torch.inference_mode():
        wanted = conv(x)
        for floats in (1, 60_000, 10**9):
            monkeypatch.setattr("util.inference.winograd.BLOCK_FLOATS", floats)
            for memory_format in (torch.contiguous_format, torch.channels_last):
                found = WinogradConv2d(conv)(x.to(memory_format=memory_format))
                torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)


UNSUITABLE = {
    "few inputs": convolution(255),
    "few outputs": convolution(256, 255),
    "1x1": convolution(kernel_size=1, padding=0),
    "stride": convolution(stride=2),
    "groups": convolution(groups=2),
    "padding": convolution(padding=2),
    "same": convolution(padding="same"),
    "two dilations": convolution(padding=(1, 2), dilation=(1, 2)),
    "reflection": convolution(padding_mode="reflect"),
    "transposed": nn.ConvTranspose2d(256, 256, 3, padding=1),
}


@pytest.mark.parametrize("name", UNSUITABLE)
def test_other_convolutions_are_left_alone(name: str) -> None:
    assert is_suitable(convolution()) and not is_suitable(UNSUITABLE[name])
    network = nn.Sequential(convolution(), UNSUITABLE[name])
    kinds = [type(module) for module in inference_copy(network, CPU)]
    assert kinds == [WinogradConv2d, type(UNSUITABLE[name])]


def test_only_float32_on_cpus_and_not_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    def kinds(amp: str, *, compiled: bool = False) -> list[type]:
        network = nn.Sequential(convolution())
        return [type(m) for m in inference_copy(network, CPU, amp=amp, compiled=compiled)]

    monkeypatch.setattr(torch, "compile", lambda network, **_: network)
    assert WinogradConv2d in kinds("off")
    assert WinogradConv2d not in kinds("bf16") + kinds("fp16") + kinds("off", compiled=True)


def test_a_wrapped_network() -> None:
    """The convolution that a Segmentor splits is not replaced as a whole, wherever it is."""
    torch.manual_seed(0)
    model = PSPNet(layers=50, classes=3).eval()
    image = torch.randn(1, 3, 33, 33)
    with torch.inference_mode():
        found = inference_copy(nn.Sequential(model), CPU)(image).logits
        wanted = model(image).logits[..., ::8, ::8]
    assert (found - wanted).abs().max() < 1e-4 * wanted.std()


def test_a_network_predicts_the_same(rng: np.random.Generator) -> None:
    torch.manual_seed(0)
    model = PSPNet(layers=50, classes=7).eval()
    with torch.inference_mode():
        predictor = SlidingPredictor(model, classes=7, crop=(65, 65), base_size=65)
        found = predictor.model
        used = [name for name, m in found.named_modules() if isinstance(m, WinogradConv2d)]
        # layer3 and layer4 have 6 + 3 blocks, and the classifier convolves layer4's features.
        assert len(used) == 6 + 3 + 1 and used[-1] == "cls.0.own"
        image = torch.randn(1, 3, 65, 65)
        wanted = model(image).logits[..., ::8, ::8]
        assert (found(image).logits - wanted).abs().max() < 1e-4 * wanted.std()
    assert not any(isinstance(module, WinogradConv2d) for module in model.modules())
    model.train()(torch.randn(2, 3, 65, 65)).logits.sum().backward()  # still trains
    assert model.layer4[0].conv2.weight.grad is not None
    assert predictor.predict(smooth(rng, 40, 65)).shape == (40, 65)
