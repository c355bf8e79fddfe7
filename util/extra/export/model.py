"""A predictor that runs an exported file, without the original network."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from util.error import CheckpointError, ConfigError, DataError, RunError
from util.inference.predictor import DAMAGED

INSTALL = "pip install -r requirements-export.txt"


class ExportedModel:
    """Predicts images with an exported file; `predict` works like SlidingPredictor's."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise CheckpointError(f"no model file {path}")
        self.metadata: dict[str, str] = {}
        self.size: tuple[int, int] | None = None  # height, width of images, None for any
        self._run: Callable[[torch.Tensor], torch.Tensor]
        if self.path.suffix == ".pt2":
            try:
                program = torch.export.load(self.path)
            except Exception:  # torch raises nearly everything for a damaged file
                raise CheckpointError(
                    f"{path} cannot be read as a torch.export program: export it again"
                ) from None
            self._run = program.module(check_guards=False)  # parity() checks
            return
        try:
            import onnxruntime
        except ImportError:
            raise ConfigError(f".onnx files need the package onnxruntime: {INSTALL}") from None
        try:
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = torch.get_num_threads()
            session = onnxruntime.InferenceSession(self.path, options)
        except Exception as error:  # onnxruntime's own types, for a damaged file
            reason = str(error).partition("\n")[0]
            raise CheckpointError(f"{path} cannot be read as ONNX: {reason}") from None
        inputs = session.get_inputs()
        if [(x.name, x.type, len(x.shape)) for x in inputs] != [("image", "tensor(uint8)", 4)]:
            raise CheckpointError(
                f"{path} does not take uint8 images (N, H, W, 3): give an .onnx file written by "
                "tool/export.py"
            )
        height, width = inputs[0].shape[1:3]  # names where any size will do
        self.size = (height, width) if isinstance(height, int) else None
        self.metadata = session.get_modelmeta().custom_metadata_map
        self._run = lambda image: torch.from_numpy(session.run(None, {"image": image.numpy()})[0])

    def names_and_colors(self) -> tuple[list[str], np.ndarray]:
        """Read the class names and colours (C, 3) from the metadata. Raises CheckpointError."""
        names, colors = (self._metadata(key) for key in ("names", "colors"))
        if len(names) != len(colors):
            raise CheckpointError(
                f"{self.path} names {len(names)} classes and has {len(colors)} colours: export it "
                "again"
            )
        return names, np.array(colors, np.uint8)

    def _metadata(self, key: str) -> list:
        try:
            return json.loads(self.metadata[key])
        except (KeyError, ValueError):
            raise CheckpointError(
                f"{self.path} holds no class {key}: give an .onnx file written by tool/export.py"
            ) from None

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Run the file on images (N, H, W, 3), uint8, and return its output."""
        with torch.inference_mode():
            return self._run(torch.from_numpy(np.ascontiguousarray(images))).numpy()

    def predict(self, image: np.ndarray) -> np.ndarray:
        """Return the class ids (H, W) of an RGB image (H, W, 3), uint8.

        Raises DataError for a size that the file does not take, RunError if the network's values
        are not finite.
        """
        if self.size and self.size != image.shape[:2]:
            height, width = self.size
            raise DataError(
                f"{self.path} takes images of {width}x{height} pixels only, got "
                f"{image.shape[1]}x{image.shape[0]}: resize the image"
            )
        found = self(image[None])[0]
        if not np.isfinite(found).all() or found.min() < 0:  # as write.Deployed marks them
            raise RunError(f"{self.path}: {DAMAGED}")
        return found.argmax(axis=0) if found.ndim == 3 else found
