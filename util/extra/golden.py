"""Weights, inputs and images generated reproducibly from a name, and reference values for them.

The values in tool/golden come from an independent implementation of the same networks and test
protocol, in float32 on a CPU. Both sides draw from NumPy's RandomState, whose streams are frozen.
"""

import gzip
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

FOLDER = Path(__file__).resolve().parents[2] / "tool" / "golden"


def generator(tag: str) -> np.random.RandomState:
    """Return a random generator seeded with a text."""
    return np.random.RandomState(zlib.crc32(tag.encode()))


@torch.no_grad()
def fill(module: nn.Module, salt: str) -> nn.Module:
    """Set all weights and statistics to numbers determined by (salt, name); return the module."""
    for name, entry in module.state_dict().items():
        normal = generator(f"{salt}/{name}").standard_normal
        shape = tuple(entry.shape)
        if name.endswith("num_batches_tracked"):
            value = np.zeros(shape)
        elif name.endswith("running_var"):
            value = 1 + 0.1 * np.abs(normal(shape))
        elif name.endswith(("running_mean", "bias")):
            value = 0.1 * normal(shape)
        elif entry.dim() >= 2:  # convolutions: variance 1 / fan-in
            value = normal(shape) / np.sqrt(np.prod(shape[1:]))
        else:  # BatchNorm's weight
            value = 1 + 0.1 * normal(shape)
        entry.copy_(torch.from_numpy(np.asarray(value)))
    return module


def batch(
    salt: str, size: tuple[int, int, int], label_size: tuple[int, int], classes: int
) -> tuple[Tensor, Tensor]:
    """Generate input (N, 3, H, W), float32, and label (N, *label_size), int64, a tenth of it 255.

    `size` is (N, H, W).
    """
    n, height, width = size
    image = generator(f"{salt}/input").standard_normal((n, 3, height, width)).astype(np.float32)
    random = generator(f"{salt}/label")
    label = random.randint(0, classes, (n, *label_size))
    label[random.uniform(size=label.shape) < 0.1] = 255
    return torch.from_numpy(image), torch.from_numpy(label).long()


def smooth_image(salt: str, height: int, width: int) -> np.ndarray:
    """Generate a smooth RGB image (H, W, 3), uint8: six plane waves per channel, over 0..255."""
    random = generator(f"{salt}/image")
    y, x = np.mgrid[0:height, 0:width]
    image = np.zeros((height, width, 3))
    for channel in range(3):
        for _ in range(6):
            fy, fx, phase, amplitude = (
                random.uniform(low, high)
                for low, high in ((0, 0.15), (0, 0.15), (0, 6.28), (0.3, 1))
            )
            image[..., channel] += amplitude * np.sin(fy * y + fx * x + phase)
    image -= image.min()
    return np.round(image / image.max() * 255).astype(np.uint8)


def load_cases() -> dict[str, dict[str, Any]]:
    """Read the cases: name -> network arguments, salt and sizes."""
    return json.loads((FOLDER / "cases.json").read_text())


def load_values() -> dict[str, np.ndarray]:
    """Read the reference values: `<case>/<name>` -> array."""
    with np.load(FOLDER / "values.npz") as values:
        return dict(values)


def load_state_names() -> dict[str, list[tuple[str, tuple[int, ...]]]]:
    """Read the state dict layouts: network -> (name, shape) of all entries, in order."""
    networks: dict[str, list[tuple[str, tuple[int, ...]]]] = {}
    with gzip.open(FOLDER / "state_dict.txt.gz", "rt") as file:
        for line in file:
            name, *shape = line.split()
            if name == "#":
                entries = networks[shape[0]] = []
            else:
                entries.append((name, tuple(map(int, shape))))
    return networks
