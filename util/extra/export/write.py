"""Exporting a trained network to one file that runs without this project: ONNX or torch.export.

The file includes all processing of a whole image at its own size: padding with the mean colour to
valid sides, normalisation, upsampling of the logits, argmax. Sliding windows, multiple scales and
mirroring are not exported.
"""

import io
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model import Segmentor
from util.config import Config
from util.data.file import file_sha256
from util.data.transform import MEAN, STD
from util.error import ConfigError, RunError, show
from util.extra.export.model import INSTALL
from util.inference.network import fold_batchnorm

NO_LABEL = -1  # of all pixels of an image for which the network gives infinite or NaN values


class Deployed(nn.Module):
    """Maps RGB images (N, H, W, 3), uint8, to ids (N, H, W) or probabilities (N, classes, H, W).

    Where the network gives infinite or NaN values for an image, all its ids are NO_LABEL, or all
    its probabilities NaN.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: Segmentor, *, probabilities: bool) -> None:
        super().__init__()
        self.network = fold_batchnorm(network.eval()).requires_grad_(False)
        self.network.upsamples = False
        self.step, self.rest = network.sides
        self.probabilities = probabilities
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(STD).view(3, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        x = (image.permute(0, 3, 1, 2).float() - self.mean) / self.std
        height, width = x.shape[-2:]
        tall, wide = (
            ((side - self.rest - 1) // self.step + 1) * self.step + self.rest
            for side in (height, width)
        )
        top, left = (tall - height) // 2, (wide - width) // 2
        x = F.pad(x, (left, wide - width - left, top, tall - height - top))
        logits = self.network(x).logits
        is_finite = logits.isfinite().flatten(1).all(dim=1)[:, None, None]
        logits = F.interpolate(logits, (tall, wide), mode="bilinear", align_corners=True)
        logits = logits[..., top : top + height, left : left + width]
        if self.probabilities:
            return logits.softmax(dim=1).where(is_finite[:, None], torch.nan)
        return logits.argmax(dim=1).where(is_finite, NO_LABEL)


def example_sizes(network: Segmentor, fixed: tuple[int, int] | None) -> list[tuple[int, int]]:
    """Return image sizes for the parity report: valid and invalid sides, wide and tall."""
    if fixed:
        return [fixed]
    side = network.valid_side(64)
    return [(side, side), (side + 3, side + 50), (side + 71, side + 6), (side + 17, 2 * side + 9)]


def export_network(
    network: Segmentor,
    path: Path,
    *,
    kind: str,
    probabilities: bool,
    fixed: tuple[int, int] | None,
) -> None:
    """Write a file of kind `onnx` or `pt2`; with `fixed`, it only takes images of that size.

    Raises RunError if PyTorch cannot export the network, as with some timm backbones.
    """
    deployed = Deployed(network, probabilities=probabilities).eval()
    height, width = fixed or example_sizes(network, None)[1]
    image = torch.zeros(2, height, width, 3, dtype=torch.uint8)
    free = torch.export.Dim.DYNAMIC
    shapes = ({0: free} if fixed else {0: free, 1: free, 2: free},)
    if kind == "pt2":
        with _refusals(kind):
            program = torch.export.export(deployed, (image,), dynamic_shapes=shapes)
        content = io.BytesIO()  # torch's own error for a full disk does not name the cause
        torch.export.save(program, content)
        path.write_bytes(content.getvalue())
        return
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ConfigError(f"ONNX needs the package {error.name}: {INSTALL}") from None
    with _refusals(kind):
        onnx_program = torch.onnx.export(
            deployed,
            (image,),
            input_names=["image"],
            output_names=["probabilities" if probabilities else "label"],
            dynamo=True,
            dynamic_shapes=shapes,
            verbose=False,
        )
    assert onnx_program is not None
    onnx_program.save(path, external_data=False)


@contextmanager
def _refusals(kind: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # torch raises various types if it cannot trace a network
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        reason = next((line for line in str(cause).splitlines() if line.strip()), repr(cause))
        raise RunError(
            f"torch {torch.__version__} cannot export this network to {kind}: {show(reason)}; "
            "choose another TRAIN.backbone, another --format or another torch version"
        ) from None


def write_metadata(path: Path, metadata: dict[str, Any]) -> None:
    """Replace the metadata of an ONNX file."""
    import onnx

    model = onnx.load(path)
    del model.metadata_props[:]
    for name, value in metadata.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = name, value if isinstance(value, str) else json.dumps(value)
    onnx.save(model, path)


def metadata_of(
    cfg: Config, config: str, names: Sequence[str], colors: np.ndarray, checkpoint: str
) -> dict[str, Any]:
    """Return what users of the file need: class names and colours, config, SHA-256 of weights."""
    return {
        "classes": cfg.classes,
        "names": list(names),
        "colors": np.asarray(colors).tolist(),
        "config": config,
        "checkpoint_sha256": file_sha256(checkpoint),
    }
