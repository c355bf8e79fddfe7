"""Memory of inference: batch size, images that do not fit, peak memory of a large image."""

import logging
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import Tensor

from model.segmentor import SegOutput
from tests.conftest import ROOT
from tests.helpers.networks import Toy, smooth
from util.error import RunError
from util.inference import SlidingPredictor
from util.inference.memory import windows_that_fit

GIB = 2**30


@pytest.mark.parametrize("cached", [0, 3, 6])
def test_cached_memory_counts_as_free(monkeypatch: pytest.MonkeyPatch, cached: int) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: ((7 - cached) * GIB, 12 * GIB))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: (2 + cached) * GIB)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 2 * GIB)
    assert windows_that_fit(torch.device("cuda"), (473, 473)) == 8


class Small(Toy):
    """Simulates a GPU with memory for at most `most` windows."""

    most, sizes = 3, []

    def forward(self, x: Tensor) -> SegOutput:
        self.sizes.append(len(x))
        if len(x) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.00 GiB")
        return super().forward(x)


@pytest.mark.parametrize("mode", ["slide", "whole"])
def test_batch_is_halved_when_memory_runs_out_and_stays_so(
    rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    mode: str,
) -> None:
    most = 3 if mode == "slide" else 1
    monkeypatch.setattr(Small, "most", most)
    monkeypatch.setattr(Small, "sizes", [])
    protocol = {"classes": 4, "crop": (33, 33), "base_size": 90, "mode": mode}
    image = smooth(rng, 90, 75)
    wanted = SlidingPredictor(Toy(4), **protocol).probabilities(image)
    predictor = SlidingPredictor(Small(4), **protocol, batch_windows=20)
    with caplog.at_level(logging.WARNING, "semseg"):
        found = predictor.probabilities(image)
    assert (found - wanted).abs().max() < 1e-6
    assert "out of GPU memory" in caplog.text and "TEST.batch_windows" in caplog.text
    assert max(Small.sizes) == (20 if mode == "slide" else 2)
    Small.sizes.clear()
    caplog.clear()
    predictor.predict(image)
    assert max(Small.sizes) == most and not caplog.text


def test_single_window_that_does_not_fit_is_reported(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Small, "most", 0)
    predictor = SlidingPredictor(Small(4), classes=4, crop=(33, 33), base_size=60)
    for call in (predictor.predict, predictor.probabilities):
        with pytest.raises(RunError, match=r"out of memory for an image of 60x40 .*TEST\.scales"):
            call(smooth(rng, 40, 60))


@pytest.mark.parametrize(
    ("base_size", "scale", "crop"),
    [
        (512, 3000.0, (33, 33)),
        (10**9, 1.0, (33, 33)),
        (512, 1e308, (33, 33)),
        (512, 1e300, (33, 33)),
        (60, 1.0, (800001, 800001)),
    ],
)
def test_scaled_image_that_cannot_fit_is_reported(
    rng: np.random.Generator, base_size: int, scale: float, crop: tuple[int, int]
) -> None:
    predictor = SlidingPredictor(
        Toy(4), classes=4, crop=crop, base_size=base_size, scales=[1e-3, scale]
    )
    with pytest.raises(RunError, match=r"at scale .* needs .* GiB, more than the .* lower TEST"):
        predictor.predict(smooth(rng, 40, 60))


def test_failed_allocation_is_reported(rng: np.random.Generator) -> None:
    class Greedy(Toy):
        def forward(self, x: Tensor) -> SegOutput:
            return SegOutput(torch.empty(10**15), None)

    predictor = SlidingPredictor(Greedy(4), classes=4, crop=(33, 33), base_size=60)
    with pytest.raises(RunError, match="out of memory"):
        predictor.predict(smooth(rng, 40, 60))


@pytest.mark.gpu
def test_a_gpu_without_memory_for_the_batch_halves_it(rng: np.random.Generator) -> None:
    class Wide(Toy):
        def forward(self, x: Tensor) -> SegOutput:
            torch.empty(len(x), 12 * GIB // 8, dtype=torch.float64, device=x.device)  # each 12 GiB
            return super().forward(x)

    protocol = {"classes": 4, "crop": (33, 33), "base_size": 200, "device": "cuda"}
    predictor, image = SlidingPredictor(Wide(4), **protocol), smooth(rng, 200, 200)
    before = predictor.batch_windows
    found = predictor.probabilities(image)
    assert predictor.batch_windows < before
    plain = SlidingPredictor(Toy(4), **protocol)
    assert (found - plain.probabilities(image)).abs().max() < 1e-5
    held = windows_that_fit(torch.device("cuda"), (473, 473))
    torch.empty(8 * GIB, dtype=torch.uint8, device="cuda")
    assert windows_that_fit(torch.device("cuda"), (473, 473)) == held


MEMORY = """
import resource, sys
import numpy as np, torch
from tests.helpers.networks import Low
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
