"""Quantising an exported ONNX file to 8 bits: smaller, and faster on many CPUs."""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from util.data.image import IMAGE_SUFFIXES, read_image
from util.data.list_file import read_list
from util.error import DataError, RunError
from util.extra.export.model import ExportedModel
from util.extra.prepare.files import walk

IMAGES = 32  # for calibration, and as many again for the comparison
LEAST_AGREEMENT = 0.95  # minimum share of pixels with the same label as in the float model
OPERATORS = ["Conv", "Add", "MaxPool", "Gemm", "MatMul"]  # the rest stays in float32


def calibration_images(source: Path, data_root: str) -> tuple[list[Path], list[Path]]:
    """Return images for calibration and others for comparison, from a folder or list file."""
    if not source.exists():
        raise DataError(f"--int8 {source} does not exist: give a folder of images or a list file")
    if source.is_dir():
        paths = [path for path in walk(source) if path.suffix.lower() in IMAGE_SUFFIXES]
    else:
        paths = [sample.image for sample in read_list(source, data_root, has_labels=False)]
    if len(paths) < 2:
        raise DataError(f"--int8 {source} has {len(paths)} images: give at least 2, preferably 64")
    paths = paths[:: max(1, len(paths) // (2 * IMAGES))][: 2 * IMAGES]
    return paths[::2], paths[1::2]


def quantise(path: Path, output: Path, images: Sequence[Path]) -> None:
    """Write an int8 version of the ONNX file `path`; `images` calibrate the activation ranges."""
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.inputs: Iterator[Path] = iter(images)

        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(self.inputs, None)
            return None if image is None else {"image": read_image(image)[None]}

    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder, "prepared.onnx")
        quant_pre_process(path, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            output,
            Reader(),
            op_types_to_quantize=OPERATORS,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )


def agreement(model: ExportedModel, quantised: ExportedModel, images: Sequence[Path]) -> float:
    """Return the share of pixels to which both models give the same label.

    If it is below LEAST_AGREEMENT, deletes the quantised file and raises RunError.
    """
    equal = [model.predict(image) == quantised.predict(image) for image in map(read_image, images)]
    share = float(np.concatenate([pixels.ravel() for pixels in equal]).mean())
    if share < LEAST_AGREEMENT:
        quantised.path.unlink()
        raise RunError(
            f"only {share:.2%} of the int8 labels agree with {model.path}, less than "
            f"{LEAST_AGREEMENT:.0%}: {quantised.path} was removed; give --int8 images similar to "
            "the training images, or use the float file"
        )
    return share
