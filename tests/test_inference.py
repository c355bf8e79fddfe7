"""The predictor against the plain loop in float64, for any size, batch, mode and precision."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from model.segmentor import SegOutput
from tests.helpers.networks import Low, Toy, network64, smooth
from util.error import RunError
from util.extra.sliding_window_reference import plain_loop, side_8k1, starts
from util.inference import SlidingPredictor, strips, window_starts

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
    whole = side_8k1 if mode == "whole" else None
    wanted = plain_loop(network64(model), image, **protocol, whole=whole)
    predictor = SlidingPredictor(model, **protocol, mode=mode)
    found = predictor.probabilities(image).permute(1, 2, 0).numpy()
    assert np.abs(found - wanted).max() < 1e-5
    pred = predictor.predict(image)
    assert pred.shape == size and pred.dtype == (np.uint8 if classes <= 256 else np.int32)
    near = np.sort(wanted, axis=2)[..., -2:]
    is_clear = near[..., 1] - near[..., 0] > 1e-5
    assert is_clear.mean() > 0.99
    np.testing.assert_array_equal(pred[is_clear], wanted.argmax(2)[is_clear])


class Other(Toy):
    """Takes multiples of 16 and returns logits of an unrelated size."""

    def __init__(self, classes: int, size: tuple[int, int]) -> None:
        super().__init__(classes)
        self.size = size

    def valid_side(self, side: int) -> int:
        return -(-side // 16) * 16

    def forward(self, x: Tensor) -> SegOutput:
        assert x.shape[2] % 16 == x.shape[3] % 16 == 0
        logits = super().forward(x).logits
        return SegOutput(nn.functional.adaptive_avg_pool2d(logits, self.size), None)


@pytest.mark.parametrize("mode", ["slide", "whole"])
@pytest.mark.parametrize("logits_size", [(1, 1), (4, 7), (32, 40), (50, 61)])
def test_network_with_other_input_sides_and_logits_of_any_size(
    rng: np.random.Generator, logits_size: tuple, mode: str
) -> None:
    image, model = smooth(rng, 37, 50), Other(4, logits_size)
    protocol = {"classes": 4, "crop": (32, 48), "base_size": 50, "scales": [0.8, 1.5]}
    double = network64(model)

    def at_the_size_of_windows(windows: Tensor) -> Tensor:
        size, logits = windows.shape[2:], double(windows)
        return nn.functional.interpolate(logits, size, mode="bilinear", align_corners=True)

    whole = model.valid_side if mode == "whole" else None
    wanted = plain_loop(at_the_size_of_windows, image, **protocol, whole=whole)
    found = SlidingPredictor(model, **protocol, mode=mode).probabilities(image)
    assert np.abs(found.permute(1, 2, 0).numpy() - wanted).max() < 1e-5


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


def test_huge_logits_stay_probabilities(rng: np.random.Generator) -> None:
    model = Toy(4)
    with torch.no_grad():
        model.conv.weight *= 1e4
    predictor = SlidingPredictor(model, classes=4, crop=(33, 33), base_size=60)
    probs = predictor.probabilities(smooth(rng, 40, 60))
    assert torch.allclose(probs.sum(0), torch.ones(40, 60), atol=1e-5)


@pytest.mark.parametrize("value", [torch.nan, 3e38])
def test_values_that_are_not_finite_are_no_class_0(rng: np.random.Generator, value: float) -> None:
    model = Toy(4)
    with torch.no_grad():
        model.conv.weight.fill_(value)
    predictor = SlidingPredictor(model, classes=4, crop=(33, 33), base_size=60)
    with pytest.raises(RunError, match=r"infinite or NaN values .* its weights are damaged"):
        predictor.predict(smooth(rng, 40, 60))


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("width", [1, 7, 20, 61])
def test_interpolation_is_a_matrix_product(width: int, align_corners: bool) -> None:
    """The GPU code path, in float32 on the CPU."""
    rows = torch.randn(3, 4, 13)
    matrix = strips.stretching_matrix(13, width, align_corners, rows.dtype, rows.device)
    wanted = strips.stretch(rows, width, align_corners=align_corners)
    torch.testing.assert_close(rows @ matrix, wanted, rtol=1e-5, atol=1e-5)


def test_an_image_may_be_a_flipped_view(rng: np.random.Generator) -> None:
    """Such as `cv2.imread(path)[..., ::-1]`."""
    image = rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)
    predictor = SlidingPredictor(Toy(3), classes=3, crop=(33, 33), base_size=48)
    wanted = predictor.predict(image[..., ::-1].copy())
    assert np.array_equal(predictor.predict(image[..., ::-1]), wanted)
    with pytest.raises(ValueError, match=r"RGB of shape \(H, W, 3\), got \(40, 48\)"):
        predictor.predict(image[..., 0])
