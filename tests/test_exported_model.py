"""Exported files as predictors: values that are not finite, other images and damaged files."""

from pathlib import Path

import numpy as np
import pytest
from torch import Tensor, nn

from model.segmentor import SegOutput, Sides
from tests.conftest import RunTool, assert_one_sentence
from util.data.image import write_image
from util.error import CheckpointError, DataError, RunError
from util.extra.export.model import ExportedModel
from util.extra.export.parity import parity
from util.extra.export.write import export_network, write_metadata

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

METADATA = {"classes": 3, "names": ["a", "b", "c"], "colors": [[0, 0, 0], [9, 9, 9], [99, 99, 99]]}
NOT_FINITE = "the network gives infinite or NaN values instead of logits"


class Logarithm(nn.Module):
    """Logits at 1/8 that are NaN where an image is dark."""

    sides = Sides(8, 1)

    def valid_side(self, side: int) -> int:
        return self.sides.next(side)

    def forward(self, x: Tensor) -> SegOutput:
        return SegOutput((x[..., ::8, ::8] + 1).log(), None)


def image_with(dark: int) -> np.ndarray:
    """(40, 50, 3), bright but for some pixels."""
    image = np.full((40, 50, 3), 255, np.uint8)
    image[:dark, :dark] = 0
    return image


@pytest.fixture(scope="module", params=["onnx", "pt2", "probabilities"])
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    kind = "onnx" if request.param == "probabilities" else request.param
    path = tmp_path_factory.mktemp("exported") / f"m.{kind}"
    probabilities = request.param == "probabilities"
    export_network(Logarithm(), path, kind=kind, probabilities=probabilities, fixed=None)
    if kind == "onnx":
        write_metadata(path, METADATA)
    return path


def test_values_that_are_not_finite_are_an_error(exported: Path) -> None:
    model = ExportedModel(exported)
    assert (model.predict(image_with(dark=0)) == 2).all()
    with pytest.raises(RunError, match=NOT_FINITE):
        model.predict(image_with(dark=20))


def test_only_the_image_concerned_has_no_labels(exported: Path) -> None:
    labels = ExportedModel(exported)(np.stack([image_with(dark=0), image_with(dark=20)]))
    if labels.ndim == 4:  # probabilities
        assert np.isfinite(labels[0]).all() and np.isnan(labels[1]).any()
    else:
        assert (labels[0] == 2).all() and (labels[1] == -1).all()


def test_the_demo_says_so(exported: Path, tmp_path: Path, run_tool: RunTool) -> None:
    if exported.suffix == ".pt2":
        pytest.skip("the demo takes .onnx files")
    write_image(tmp_path / "a.png", image_with(dark=20))
    words = ["--model", exported, "--image", tmp_path / "a.png", "--output", tmp_path / "out"]
    code, _, err = run_tool("demo", *words)
    assert_one_sentence(code, err, "m.onnx: " + NOT_FINITE)
    assert not list((tmp_path / "out").iterdir())


def test_a_network_without_finite_values_is_not_exported(tmp_path: Path) -> None:
    path, network = tmp_path / "m.pt2", Logarithm().eval()
    export_network(network, path, kind="pt2", probabilities=False, fixed=None)
    with pytest.raises(RunError, match=rf"{NOT_FINITE}.*m\.pt2 is removed"):
        parity(ExportedModel(path), network, classes=3, fixed=None)
    assert not path.exists()


def test_the_demo_checks_what_the_file_says_of_classes(
    exported: Path, tmp_path: Path, run_tool: RunTool
) -> None:
    if exported.suffix == ".pt2":
        pytest.skip("the demo takes .onnx files")
    path = tmp_path / "m.onnx"
    write_image(tmp_path / "a.png", image_with(dark=0))
    for changed, part in (
        ({"names": ["a", "b"]}, "m.onnx names 2 classes and has 3 colours"),
        ({"names": "[a"}, "m.onnx holds no class names"),
        ({"names": ["a"], "colors": [[0, 0, 0]]}, "m.onnx gives class 2, but names 1 classes"),
    ):
        path.write_bytes(exported.read_bytes())
        write_metadata(path, {**METADATA, **changed})
        words = [f"--model={path}", "--image", tmp_path / "a.png", "--output", tmp_path / "out"]
        code, _, err = run_tool("demo", *words)
        assert_one_sentence(code, err, part)
        assert not list((tmp_path / "out").glob("*"))


def test_images_of_another_size_than_that_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    network = Logarithm().eval()
    export_network(network, path, kind="onnx", probabilities=False, fixed=(33, 41))
    with pytest.raises(DataError, match=r"m\.onnx takes images of 41x33 pixels only, got 50x40"):
        ExportedModel(path).predict(image_with(dark=0))
    assert (ExportedModel(path).predict(image_with(dark=0)[:33, :41]) == 2).all()


def test_networks_of_other_projects_are_refused(tmp_path: Path) -> None:
    shape = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 3, 8, 8])
    out = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", 3, 8, 8])
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Relu", ["x"], ["y"])], "graph", [shape], [out]
    )
    opset = onnx.helper.make_opsetid("", 17)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8), tmp_path / "x")
    with pytest.raises(CheckpointError, match="x does not take uint8 images"):
        ExportedModel(tmp_path / "x")


def test_damaged_programs_are_named(tmp_path: Path) -> None:
    (tmp_path / "m.pt2").write_text("<html>")
    with pytest.raises(CheckpointError, match=r"m\.pt2 cannot be read as a torch\.export program"):
        ExportedModel(tmp_path / "m.pt2")
