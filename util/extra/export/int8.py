"""An exported ONNX file with 8-bit weights and activations: smaller, and faster on many CPUs."""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from util.data.image import IMAGE_SUFFIXES, read_image
from util.data.list_file import read_list
from util.error import DataError, RunError
from util.extra.export.model import ExportedModel

IMAGES = 32  # for the ranges of the activations, and as many others for the comparison
LEAST_AGREEMENT = 0.95  # share of pixels with the label of the float file
OPERATORS = ["Conv", "Add", "MaxPool", "Gemm", "MatMul"]  # the rest stays in float32


def calibration_images(source: Path, data_root: str) -> tuple[list[Path], list[Path]]:
    """(for the ranges, for the comparison): every other image below a folder or of a list file."""
    if not source.exists():
        raise DataError(f"--int8: no folder or list file {source}")
    if source.is_dir():
        files = (path for path in source.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
        paths = sorted(files)
    else:
        paths = [sample.image for sample in read_list(source, data_root, has_labels=False)]
    if len(paths) < 2:
        raise DataError(f"--int8 {source} has {len(paths)} images: give at least 2, better 64")
    paths = paths[:: max(1, len(paths) // (2 * IMAGES))][: 2 * IMAGES]
    return paths[::2], paths[1::2]


def quantise(path: Path, output: Path, images: Sequence[Path]) -> None:
    """Write the ONNX file at `path` in int8; the images give the ranges of the activations."""
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
    """Share of the images' pixels to which both files give the same label.

    Raises RunError, and removes the quantised file, where that is below LEAST_AGREEMENT.
    """
    equal = [model.predict(image) == quantised.predict(image) for image in map(read_image, images)]
    share = float(np.concatenate([pixels.ravel() for pixels in equal]).mean())
    if share < LEAST_AGREEMENT:
        quantised.path.unlink()
        raise RunError(
            f"in int8 only {share:.2%} of the labels are those of {model.path}, less than "
            f"{LEAST_AGREEMENT:.0%}: {quantised.path} is removed; give images like those of the "
            "training to --int8, or use the float file"
        )
    return share
