"""A trained network as one file that runs without this project: ONNX, or a torch.export program.

Inside are what surrounds the network when a whole image is predicted at its own size: padding with
the mean colour to sides that the network takes, normalisation, enlargement of the logits, argmax.
Sliding windows, several scales and mirror images stay in this project.
"""

import hashlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model import Segmentor
from util.config import Config
from util.data.transform import MEAN, STD
from util.error import CheckpointError, ConfigError, RunError
from util.inference import SlidingPredictor
from util.inference.network import fold_batchnorm

TOLERANCE = 1e-4  # of probabilities
INSTALL = "pip install -r requirements-export.txt"


class Deployed(nn.Module):
    """(N, H, W, 3) uint8 RGB -> (N, H, W) class ids, or (N, classes, H, W) probabilities."""

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
        logits = F.interpolate(logits, (tall, wide), mode="bilinear", align_corners=True)
        logits = logits[..., top : top + height, left : left + width]
        return logits.softmax(dim=1) if self.probabilities else logits.argmax(dim=1)


class Unmirrored(nn.Module):
    """Lets SlidingPredictor, which averages each window with its mirror image, see it twice."""

    def __init__(self, network: Segmentor) -> None:
        super().__init__()
        self.network, self.valid_side = network, network.valid_side
        network.upsamples = False

    def forward(self, x: Tensor) -> Any:
        x = torch.stack([x[0], x[1].flip(-1)])
        out = self.network(x)
        logits = torch.stack([out.logits[0], out.logits[1].flip(-1)])
        return out._replace(logits=logits)


def example_sizes(network: Segmentor, fixed: tuple[int, int] | None) -> list[tuple[int, int]]:
    """Sizes of images for the parity report: valid and invalid sides, wide and tall."""
    if fixed:
        return [fixed]
    side = network.valid_side(64)
    return [(side, side), (side + 3, side + 50), (side + 71, side + 6), (side + 17, 2 * side + 9)]


def export_network(
    network: Segmentor, path: Path, *, probabilities: bool, fixed: tuple[int, int] | None
) -> None:
    """Write an .onnx or .pt2 file; with `fixed` for images of that size alone."""
    deployed = Deployed(network, probabilities=probabilities).eval()
    height, width = fixed or example_sizes(network, None)[1]
    image = torch.zeros(2, height, width, 3, dtype=torch.uint8)
    free = torch.export.Dim.DYNAMIC
    shapes = ({0: free} if fixed else {0: free, 1: free, 2: free},)
    if path.suffix == ".pt2":
        program = torch.export.export(deployed, (image,), dynamic_shapes=shapes)
        content = io.BytesIO()  # of a full disk torch says nothing that names it
        torch.export.save(program, content)
        path.write_bytes(content.getvalue())
        return
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ConfigError(f"ONNX needs the package {error.name}: {INSTALL}") from None
    names = {"input_names": ["image"]}
    names["output_names"] = ["probabilities" if probabilities else "label"]
    program = torch.onnx.export(
        deployed, (image,), dynamo=True, dynamic_shapes=shapes, verbose=False, **names
    )
    program.save(path, external_data=False)


def write_metadata(path: Path, metadata: dict[str, Any]) -> None:
    """Into an ONNX file."""
    import onnx

    model = onnx.load(path)
    for name, value in metadata.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = name, value if isinstance(value, str) else json.dumps(value)
    onnx.save(model, path)


def metadata_of(
    cfg: Config, config: str, names: Sequence[str], colors: np.ndarray, checkpoint: str
) -> dict[str, Any]:
    """What a user of the file needs: class names and colours, config, SHA-256 of the weights."""
    digest = hashlib.sha256(Path(checkpoint).read_bytes()).hexdigest()
    return {
        "classes": cfg.classes,
        "names": list(names),
        "colors": np.asarray(colors).tolist(),
        "config": config,
        "checkpoint_sha256": digest,
    }


class ExportedModel:
    """Predicts images with an exported file: `predict` as SlidingPredictor's."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise CheckpointError(f"no model file {path}")
        self.metadata: dict[str, str] = {}
        if self.path.suffix == ".pt2":
            self._run = torch.export.load(self.path).module(check_guards=False)  # parity() checks
            return
        try:
            import onnxruntime
        except ImportError:
            raise ConfigError(f"an .onnx file needs the package onnxruntime: {INSTALL}") from None
        try:
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = torch.get_num_threads()
            session = onnxruntime.InferenceSession(self.path, options)
        except Exception as error:  # of onnxruntime, for a damaged file
            reason = str(error).partition("\n")[0]
            raise CheckpointError(f"{path} is no readable ONNX file: {reason}") from None
        self.metadata = session.get_modelmeta().custom_metadata_map
        self._run = lambda image: torch.from_numpy(session.run(None, {"image": image.numpy()})[0])

    def names_and_colors(self) -> tuple[list[str], np.ndarray]:
        """Of the classes, from the file's metadata."""
        try:
            names, colors = (json.loads(self.metadata[key]) for key in ("names", "colors"))
        except KeyError as error:
            raise CheckpointError(
                f"{self.path} holds no {error.args[0]} of classes: give an .onnx file of "
                "tool/export.py"
            ) from None
        return names, np.array(colors, np.uint8)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """(N, H, W, 3) uint8 -> what the file gives."""
        with torch.inference_mode():
            return self._run(torch.from_numpy(np.ascontiguousarray(images))).numpy()

    def predict(self, image: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 RGB -> (H, W) class ids."""
        found = self(image[None])[0]
        return found.argmax(axis=0) if found.ndim == 3 else found


def parity(
    model: ExportedModel,
    network: Segmentor,
    *,
    classes: int,
    fixed: tuple[int, int] | None,
    batches: Sequence[int] = (1, 3),
) -> list[str]:
    """Compare the file with this project's predictor at all example sizes; a report, by line.

    Raises RunError where labels differ (but for ties) or probabilities by more than TOLERANCE.
    """
    random, lines = np.random.default_rng(0), []
    for size in example_sizes(network, fixed):
        predictor = SlidingPredictor(
            Unmirrored(network),
            classes=classes,
            crop=size,
            base_size=max(size),
            mode="whole",
            batch_windows=64,  # the window and its mirror image in one pass
        )
        for n in batches:
            small = random.integers(0, 256, (n, 9, 9, 3), dtype=np.uint8)
            images = np.stack([_enlarged(image, size) for image in small])
            found = model(images)
            wanted = np.stack([predictor.probabilities(image).numpy() for image in images])
            if found.ndim == 4:
                off = float(np.abs(found - wanted).max())
                is_equal, what = off <= TOLERANCE, f"probabilities off by at most {off:.1e}"
            else:
                best = wanted.max(axis=1)
                chosen = np.take_along_axis(wanted, found[:, None].astype(np.int64), 1)[:, 0]
                ties = best - chosen
                is_equal = float(ties.max()) <= TOLERANCE
                equal = (found == wanted.argmax(axis=1)).mean()
                what = f"{equal:.4%} of the labels equal, the others' probabilities within "
                what += f"{ties.max():.1e}"
            lines.append(f"{n} x {size[0]} x {size[1]}: {what}")
            if not is_equal:
                model.path.unlink()
                raise RunError(
                    f"{model.path} does not agree with the network ({lines[-1]}) and is removed: "
                    "export with another torch, onnx or onnxruntime version"
                )
    return lines


def _enlarged(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    pixels = F.interpolate(pixels, size, mode="bilinear", align_corners=True)[0]
    return pixels.permute(1, 2, 0).round().byte().numpy()
