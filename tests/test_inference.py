"""The engine against the plain loop in float64; any size, batch, mode and precision."""

import copy
import subprocess
import sys
from collections.abc import Callable

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from model.activation_checkpointing import checkpoint_activations
from model.psanet import PSANet
from model.pspnet import PSPNet
from model.segmentor import Segmentor, SegOutput
from tests.conftest import ROOT
from util.distributed.sync_bn import synchronise_batch_norm
from util.error import ConfigError
from util.extra.sliding_window_reference import plain_loop, starts
from util.inference import SlidingPredictor, strips, window_starts
from util.inference.network import fold_batchnorm


class Toy(nn.Module):
    """A convolution that sees its window's borders, and is not symmetric."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, classes, 5, padding=2)

    def forward(self, x: Tensor) -> SegOutput:
        return SegOutput(self.conv(x) * 3, None)


class Low(Toy):
    """Logits at 1/8 of the size, as the real networks have them."""

    def forward(self, x: Tensor) -> SegOutput:
        return SegOutput(super().forward(x).logits[..., ::8, ::8], None)


def network64(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """What the plain loop takes: the network in float64."""
    double = copy.deepcopy(model).double().eval()
    return lambda windows: double(windows).logits


def smooth(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    noise = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
    return cv2.GaussianBlur(noise, (5, 5), 2)


CASES = [
    # classes, image, crop, base_size, scales
    (5, (40, 64), (33, 33), 64, [1.0]),
    (5, (64, 40), (33, 41), 96, [0.5, 1.0, 1.75]),
    (150, (37, 51), (41, 41), 51, [0.5, 1.5]),
    (3, (10, 90), (33, 33), 45, [1.0]),  # smaller than the crop one way, larger the other
    (3, (12, 9), (33, 33), 12, [1.0, 2.0]),  # smaller than the crop at every scale
    (3, (60, 60), (17, 25), 80, [1.0]),
    (300, (30, 30), (33, 33), 30, [1.0]),
    (3, (1, 1), (33, 33), 20, [1.0, 2.0]),
    (3, (1, 70), (33, 33), 50, [0.01, 1.0]),
    (3, (70, 1), (17, 33), 50, [1.0, 1.5]),
    (3, (121, 13), (33, 33), 47, [0.5, 1.75]),
]


@pytest.mark.parametrize("mode", ["slide", "whole"])
@pytest.mark.parametrize(("classes", "size", "crop", "base", "scales"), CASES)
def test_equals_the_plain_loop(
    rng: np.random.Generator,
    classes: int,
    size: tuple,
    crop: tuple,
    base: int,
    scales: list,
    mode: str,
) -> None:
    image, model = smooth(rng, *size), Toy(classes)
    protocol = {"classes": classes, "crop": crop, "base_size": base, "scales": scales}
    wanted = plain_loop(network64(model), image, **protocol, is_whole=mode == "whole")
    predictor = SlidingPredictor(model, **protocol, mode=mode)
    found = predictor.probabilities(image).permute(1, 2, 0).numpy()
    assert np.abs(found - wanted).max() < 1e-5
    pred = predictor.predict(image)
    assert pred.shape == size and pred.dtype == (np.uint8 if classes <= 256 else np.int32)
    near = np.sort(wanted, axis=2)[..., -2:]
    is_clear = near[..., 1] - near[..., 0] > 1e-5
    assert is_clear.mean() > 0.99
    np.testing.assert_array_equal(pred[is_clear], wanted.argmax(2)[is_clear])


@pytest.mark.parametrize("size", [(30, 44), (44, 30)])
@pytest.mark.parametrize("scales", [[1.0], [0.5, 1.75]])
def test_the_height_of_strips_does_not_change_the_result(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, size: tuple, scales: list
) -> None:
    image = smooth(rng, *size)
    predictor = SlidingPredictor(Low(5), classes=5, crop=(33, 33), base_size=40, scales=scales)
    whole, label = predictor.probabilities(image), predictor.predict(image)
    for strip, piece in ((1, 1), (1000, 1000), (2500, 10**6)):
        monkeypatch.setitem(strips.STRIP_FLOATS, "cpu", strip)
        monkeypatch.setitem(strips.PIECE_FLOATS, "cpu", piece)
        assert (predictor.probabilities(image) - whole).abs().max() < 1e-6
        assert (predictor.predict(image) == label).mean() > 0.999


@pytest.mark.parametrize("crop", [9, 33, 473])
def test_windows_cover_every_pixel(crop: int) -> None:
    for side in range(crop, 4 * crop, max(1, crop // 7)):
        assert window_starts(side, crop) == starts(side, crop)


NETWORKS = {
    "psp50": lambda: PSPNet(layers=50, classes=21),
    "psp18 zoom 2, plain stem": lambda: PSPNet(
        layers=18, classes=4, zoom_factor=2, deep_base=False
    ),
    "psp18 zoom 1": lambda: PSPNet(layers=18, classes=4, zoom_factor=1),
    "psa18": lambda: PSANet(layers=18, classes=5, mask_h=5, mask_w=5),
}


def ready(name: str) -> Segmentor:
    """A network whose BatchNorm does something."""
    torch.manual_seed(0)
    model = NETWORKS[name]()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.running_var):
                tensor.uniform_(0.5, 1.5)
            for tensor in (module.bias.data, module.running_mean):
                tensor.normal_(std=0.2)
    model.cls[4].weight.data *= 0.1  # else the logits are far apart, and softmax is 0 or 1
    return model


@pytest.mark.parametrize("name", NETWORKS)
def test_folding_and_late_upsampling_change_nothing(rng: np.random.Generator, name: str) -> None:
    """Real networks, as they train, against the plain loop: the same within 1e-5."""
    model = ready(name).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    image = smooth(rng, 30, 40)
    protocol = {"classes": model.cls[4].out_channels, "crop": (33, 33)}
    protocol |= {"base_size": 40, "scales": [0.8, 1.0]}
    found = SlidingPredictor(model, **protocol).probabilities(image).permute(1, 2, 0).numpy()

    # The network handed in is as it was: training, with gradients, same weights and names.
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
    predictor = SlidingPredictor(synchronise_batch_norm(model).train(), **protocol)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in predictor.model.modules())
    with torch.no_grad():
        for parameter in model.parameters():  # the training goes on
            parameter.zero_()
    assert (predictor.probabilities(image) - wanted).abs().max() < 1e-6
    assert all(m.training for m in model.modules())


def test_a_batchnorm_elsewhere_stays() -> None:
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


@pytest.mark.parametrize("mode", ["slide", "whole"])
def test_the_batch_of_windows_does_not_change_the_result(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    image = smooth(rng, 90, 75)
    sizes: list[int] = []

    def maps(batch_windows: int | None) -> Tensor:
        predictor = SlidingPredictor(
            Toy(4),
            classes=4,
            crop=(33, 33),
            base_size=90,
            scales=[1.0, 0.5],
            mode=mode,
            batch_windows=batch_windows,
        )
        predictor.model.register_forward_pre_hook(lambda _, x: sizes.append(len(x[0])))
        return predictor.probabilities(image)

    many = maps(None)
    for batch_windows in (1, 2, 5, 1000):
        sizes.clear()
        assert (maps(batch_windows) - many).abs().max() < 1e-6
        windows = 2 * (12 + 4) if mode == "slide" else 4
        assert sum(sizes) == windows and max(sizes) <= batch_windows
        if mode == "slide":  # batches reach across windows, mirror images and scales
            assert sizes == [batch_windows] * (windows // batch_windows) + [
                left for left in [windows % batch_windows] if left
            ]


def test_the_batch_follows_the_memory_that_a_gpu_has_free(monkeypatch: pytest.MonkeyPatch) -> None:
    from util.inference import predictor as inference

    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (11 * 2**30, 12 * 2**30))
    pixels = inference.batch_pixels(torch.device("cuda"))
    assert 8 <= pixels // 473**2 <= 16
    assert inference.batch_pixels(torch.device("cpu")) // 473**2 == 2


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


def test_huge_logits_stay_probabilities(rng: np.random.Generator) -> None:
    model = Toy(4)
    with torch.no_grad():
        model.conv.weight *= 1e4
    predictor = SlidingPredictor(model, classes=4, crop=(33, 33), base_size=60)
    probs = predictor.probabilities(smooth(rng, 40, 60))
    assert torch.allclose(probs.sum(0), torch.ones(40, 60), atol=1e-5)


def test_compiling_happens_once_and_changes_nothing(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three windows a batch and odd counts: the last batch is filled up, nothing recompiles."""
    shapes: list[torch.Size] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable:
        shapes.append(next(x.shape for x in inputs if x.dim() == 4 and x.shape[1] == 3))
        return graph.forward

    monkeypatch.setattr("util.inference.network.COMPILE_BACKEND", backend)
    monkeypatch.setenv("CXX", sys.executable)  # any program: this backend compiles nothing
    model = ready("psp18 zoom 1")
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


MEMORY = """
import resource, sys
import numpy as np, torch
from tests.test_inference import Low
from util.inference import SlidingPredictor

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

torch.set_num_threads(1)
predictor = SlidingPredictor(
    Low(150), classes=150, crop=(97, 97), base_size=160, scales=[0.5, 1.0]
)
predictor.predict(np.zeros((16, 16, 3), np.uint8))
before = peak()
label = predictor.predict(np.zeros((900, 1200, 3), np.uint8))
print(peak() - before)
"""


def test_memory_does_not_grow_with_classes_times_image() -> None:
    """150 classes of 900x1200 pixels are 618 MiB of probabilities; strips need far less."""
    done = subprocess.run(
        [sys.executable, "-c", MEMORY], cwd=ROOT, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 250
