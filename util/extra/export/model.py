"""A predictor that runs an exported file, without the original network."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from util.error import CheckpointError, ConfigError, RunError
from util.inference.predictor import DAMAGED

INSTALL = "pip install -r requirements-export.txt"


class ExportedModel:
    """Predicts images with an exported file; `predict` works like SlidingPredictor's."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise CheckpointError(f"no model file {path}")
        self.metadata: dict[str, str] = {}
        self._run: Callable[[torch.Tensor], torch.Tensor]
        if self.path.suffix == ".pt2":
            program = torch.export.load(self.path)
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
        self.metadata = session.get_modelmeta().custom_metadata_map
        self._run = lambda image: torch.from_numpy(session.run(None, {"image": image.numpy()})[0])

    def names_and_colors(self) -> tuple[list[str], np.ndarray]:
        """Read the class names and colours (C, 3) from the metadata. Raises CheckpointError."""
        try:
            names, colors = (json.loads(self.metadata[key]) for key in ("names", "colors"))
        except KeyError as error:
            raise CheckpointError(
                f"{self.path} holds no class {error.args[0]}: give an .onnx file written by "
                "tool/export.py"
            ) from None
        return names, np.array(colors, np.uint8)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Run the file on images (N, H, W, 3), uint8, and return its output."""
        with torch.inference_mode():
            return self._run(torch.from_numpy(np.ascontiguousarray(images))).numpy()

    def predict(self, image: np.ndarray) -> np.ndarray:
        """Return the class ids (H, W) of an RGB image (H, W, 3), uint8.

        Raises RunError if the network's values are not finite.
        """
        found = self(image[None])[0]
        if not np.isfinite(found).all() or found.min() < 0:  # as write.Deployed marks them
            raise RunError(f"{self.path}: {DAMAGED}")
        return found.argmax(axis=0) if found.ndim == 3 else found
