"""Preparing a network for inference: folding BatchNorm, late upsampling, precision, compiling."""

import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from model.activation_checkpointing import checkpoint_activations
from model.psanet import PSANet
from model.pspnet import PSPNet
from model.segmentor import Segmentor
from tests.helpers.networks import Toy, smooth
from util.distributed.sync_bn import synchronise_batch_norm
from util.error import ConfigError
from util.extra.sliding_window_reference import plain_loop
from util.inference import SlidingPredictor
from util.inference.network import fold_batchnorm, gpu_flags

NETWORKS = {
    "psp50": lambda: PSPNet(layers=50, classes=21),
    "psp18 zoom 2, plain stem": lambda: PSPNet(
        layers=18, classes=4, zoom_factor=2, deep_base=False
    ),
    "psp18 zoom 1": lambda: PSPNet(layers=18, classes=4, zoom_factor=1),
    "psa18": lambda: PSANet(layers=18, classes=5, mask_h=5, mask_w=5),
}


def ready(name: str) -> Segmentor:
    """Build a network with non-trivial BatchNorm statistics and weights."""
    torch.manual_seed(0)
    model = NETWORKS[name]()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.running_var):
                tensor.uniform_(0.5, 1.5)
            for tensor in (module.bias.data, module.running_mean):
                tensor.normal_(std=0.2)
    model.cls[4].weight.data *= 0.1  # otherwise softmax saturates
    return model


@pytest.mark.parametrize("name", NETWORKS)
def test_folding_and_late_upsampling_change_nothing(rng: np.random.Generator, name: str) -> None:
    """Real networks in training mode against the plain loop, within 1e-5."""
    model = ready(name).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    image = smooth(rng, 30, 40)
    protocol = {"classes": model.cls[4].out_channels, "crop": (33, 33)}
    protocol |= {"base_size": 40, "scales": [0.8, 1.0]}
    found = SlidingPredictor(model, **protocol).probabilities(image).permute(1, 2, 0).numpy()

    # The original is unchanged: training mode, gradients, weights and names.
    assert all(m.training for m in model.modules())
    assert all(p.requires_grad for p in model.parameters())
    after = model.state_dict()
    assert list(after) == list(before) and all(after[k].equal(before[k]) for k in before)

    double = model.double().eval()

    def logits(windows: Tensor) -> Tensor:
        small = double(windows).logits
        return nn.functional.interpolate(
            small, windows.shape[2:], mode="bilinear", align_corners=True
        )

    assert np.abs(found - plain_loop(logits, image, **protocol)).max() < 1e-5


@pytest.mark.parametrize("name", NETWORKS)
def test_no_batchnorm_is_left_after_folding(name: str) -> None:
    model: Segmentor = ready(name).eval()
    image = torch.randn(1, 3, 41, 41, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        wanted = model(image).logits.softmax(1)
        found = fold_batchnorm(model)(image).logits.softmax(1)
    assert (found - wanted).abs().max() < 1e-5
    assert not any(isinstance(m, nn.BatchNorm2d) for m in model.modules())


def test_a_network_as_it_trains_in_several_processes_is_copied_and_folded(
    rng: np.random.Generator,
) -> None:
    """With synchronised BatchNorm and checkpointed activations: the copy uses its own layers."""
    model = ready("psp18 zoom 1")
    protocol = {"classes": 4, "crop": (33, 33), "base_size": 40}
    image = smooth(rng, 30, 40)
    wanted = SlidingPredictor(model, **protocol).probabilities(image)
    checkpoint_activations(model)
    predictor = SlidingPredictor(synchronise_batch_norm(model, on_gpu=False).train(), **protocol)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in predictor.model.modules())
    with torch.no_grad():
        for parameter in model.parameters():  # training continues
            parameter.zero_()
    assert (predictor.probabilities(image) - wanted).abs().max() < 1e-6
    assert all(m.training for m in model.modules())


def test_other_batchnorm_is_kept() -> None:
    """Only what is known to follow a convolution is folded."""

    class First(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm2d(3)
            self.conv1 = nn.Conv2d(3, 3, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv1(self.norm(x))

    model = nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), First(), nn.Conv2d(3, 2, 1)).eval()
    fold_batchnorm(model)
    assert sum(isinstance(m, nn.BatchNorm2d) for m in model.modules()) == 2


def test_bf16_is_near_float32(rng: np.random.Generator) -> None:
    model = ready("psp18 zoom 1")
    protocol = {"classes": 4, "crop": (41, 41), "base_size": 60}
    image = smooth(rng, 50, 60)
    exact = SlidingPredictor(model, **protocol).probabilities(image)
    predictor = SlidingPredictor(model, **protocol, amp="bf16")
    assert next(predictor.model.parameters()).dtype == torch.bfloat16
    rough = predictor.probabilities(image)
    assert rough.dtype == torch.float32 and 0 < (rough - exact).abs().max() < 0.05
    assert torch.allclose(rough.sum(0), torch.ones(50, 60), atol=1e-5)


@pytest.mark.slow
def test_compiling_happens_once_and_changes_nothing(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three windows per batch and odd counts: the last batch is padded, nothing recompiles."""
    shapes: list[torch.Size] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable:
        shapes.append(next(x.shape for x in inputs if x.shape[1:] == (3, 33, 33)))
        return graph.forward

    monkeypatch.setattr("util.inference.network.COMPILE_BACKEND", backend)
    monkeypatch.setenv("CXX", sys.executable)  # any program: this backend compiles nothing
    model = Toy(4)
    protocol = {"classes": 4, "crop": (33, 33), "base_size": 60, "scales": [1.0, 0.5]}
    images = [smooth(rng, 50, 60), smooth(rng, 60, 33), smooth(rng, 20, 20)]
    compiled = SlidingPredictor(model, **protocol, batch_windows=3, compiled=True)
    plain = SlidingPredictor(model, **protocol)
    for image in images:
        difference = compiled.probabilities(image) - plain.probabilities(image)
        assert difference.abs().max() < 1e-5
    assert shapes == [torch.Size((3, 3, 33, 33))]


def test_compiling_without_a_compiler_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(ConfigError, match=r"needs a C\+\+ compiler .*TEST\.test_compile False"):
        SlidingPredictor(Toy(4), classes=4, crop=(33, 33), base_size=60, compiled=True)


@pytest.mark.parametrize("tf32", [False, True])
def test_float32_on_a_gpu_is_float32_unless_tf32_is_asked_for(tf32: bool) -> None:
    """Whatever was set before: PyTorch's own default lets convolutions use TF32."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, matmul.allow_tf32, cudnn.benchmark
    with gpu_flags(torch.device("cuda"), tf32=tf32, tune=True):
        assert (cudnn.allow_tf32, matmul.allow_tf32, cudnn.benchmark) == (tf32, tf32, True)
    assert (cudnn.allow_tf32, matmul.allow_tf32, cudnn.benchmark) == before


@pytest.mark.gpu
def test_a_gpu_predicts_what_the_cpu_does(rng: np.random.Generator) -> None:
    model, image = ready("psp50"), smooth(rng, 60, 80)
    protocol = {"classes": 21, "crop": (57, 65), "base_size": 80, "scales": [0.75, 1.25]}
    cpu = SlidingPredictor(model, **protocol).probabilities(image)
    difference = {}
    for amp in ("off", "tf32"):
        found = SlidingPredictor(model, **protocol, device="cuda", amp=amp).probabilities(image)
        difference[amp] = (found.cpu() - cpu).abs().max().item()
    assert difference["off"] < 1e-4 < 10 * difference["tf32"]
