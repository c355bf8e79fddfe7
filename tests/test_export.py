"""Exported files against this project's predictor."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from model import build_model, load_predictor
from tests.conftest import RunTool, assert_one_sentence
from tool import export
from util.config import dump_config, load_config
from util.data.image import read_image
from util.error import RunError
from util.extra.export import int8
from util.extra.export.model import ExportedModel

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


def checkpoint_of(tiny: Path, path: Path, *words: str) -> Path:
    torch.manual_seed(0)
    cfg = load_config(tiny, words)
    torch.save({"state_dict": build_model(cfg).state_dict(), "config": dump_config(cfg)}, path)
    return path


@pytest.mark.slow
def test_onnx_of_any_size(tiny: Path, tmp_path: Path, run_tool: RunTool) -> None:
    path = checkpoint_of(tiny, tmp_path / "w.pth")
    words = ["--config", tiny, "model_path", path, "--output", tmp_path / "m.onnx"]
    code, out, err = run_tool("export", *words)
    assert code == 0, err
    assert out.count("of the labels equal") == 8  # four sizes, two batch sizes
    model = ExportedModel(tmp_path / "m.onnx")
    assert json.loads(model.metadata["names"]) == ["class 0", "class 1", "class 2"]
    assert (
        len(model.metadata["checkpoint_sha256"]) == 64 and "arch: psp" in model.metadata["config"]
    )
    image = np.random.default_rng(0).integers(0, 256, (50, 61, 3), dtype=np.uint8)
    assert model.predict(image).shape == (50, 61)
    words_of_demo = ["--model", tmp_path / "m.onnx", "--image", tmp_path / "data/images/p0.png"]
    code, _, err = run_tool("demo", *words_of_demo, "--output", tmp_path / "shown")
    assert code == 0 and (tmp_path / "shown/p0_overlay.png").is_file(), err
    code, _, err = run_tool("export", *words)
    assert_one_sentence(code, err, "m.onnx exists")


def test_calibration_follows_links_and_skips_hidden_files(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "near").mkdir()
    for name in ("far/a.png", "far/b.PNG", "near/._a.png", "near/note.txt"):
        (tmp_path / name).touch()
    (tmp_path / "near/linked").symlink_to("../far")
    names = [[p.name for p in paths] for paths in int8.calibration_images(tmp_path / "near", "")]
    assert names == [["a.png"], ["b.PNG"]]


@pytest.mark.slow
def test_int8(
    tiny: Path, tmp_path: Path, run_tool: RunTool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A quarter of the size where it counts, nearly the same labels; refused where it is not."""
    code, _, err = run_tool("train", "--config", tiny, "epochs", 12)
    assert code == 0, err
    words = ["--config", tiny, "--output", tmp_path / "m.onnx", "--int8"]
    code, out, err = run_tool("export", *words, tmp_path / "data/train.txt")
    assert code == 0 and "ranges from 2 images" in out, err
    model, small = (ExportedModel(tmp_path / name) for name in ("m.onnx", "m.int8.onnx"))
    assert small.path.stat().st_size < 0.4 * model.path.stat().st_size
    assert small.metadata == model.metadata
    images = int8.calibration_images(tmp_path / "data/images", "")
    assert [[path.stem for path in paths] for paths in images] == [["p0", "p2"], ["p1", "p3"]]
    assert len(np.unique(model.predict(read_image(images[1][0])))) > 1
    assert int8.agreement(model, small, images[1]) >= int8.LEAST_AGREEMENT
    monkeypatch.setattr(int8, "LEAST_AGREEMENT", 1.01)
    with pytest.raises(RunError, match=r"less than 101%.*m\.int8\.onnx was removed"):
        int8.agreement(model, small, images[1])
    assert not small.path.exists()


@pytest.mark.slow
@pytest.mark.parametrize("arch", ["psp", "psa", "icnet"])
def test_pt2(tiny: Path, tmp_path: Path, run_tool: RunTool, arch: str) -> None:
    keys = ["arch", arch, *(["train_h", 65, "test_h", 65] if arch == "icnet" else [])]
    keys += ["train_w", 65, "test_w", 65] if arch == "icnet" else ["test_w", 33]
    path = checkpoint_of(tiny, tmp_path / "w.pth", *map(str, keys))
    words = ["--format", "pt2", "--output", tmp_path / "m.pt2", "--probabilities"]
    code, out, err = run_tool("export", "--config", tiny, "model_path", path, *keys, *words)
    assert code == 0, err
    assert out.count("probabilities differ by at most") == (2 if arch == "psa" else 8)
    assert ("images must be 33 x 33" in out) == (arch == "psa")


def test_mistakes(tiny: Path, tmp_path: Path, run_tool: RunTool) -> None:
    code, _, err = run_tool("export", "--config", tiny, "--output", tmp_path / "m.pt2")
    assert_one_sentence(code, err, "must end in .onnx")
    words = ["--config", tiny, "--output"]
    code, _, err = run_tool("export", *words, tmp_path / "m.onnx", "--int8", tmp_path / "run")
    assert_one_sentence(code, err, "run does not exist: give a folder", "run")
    (tmp_path / "run").mkdir()
    code, _, err = run_tool("export", *words, tmp_path / "m.onnx", "--int8", tmp_path / "run")
    assert_one_sentence(code, err, "run has 0 images: give at least 2")
    words += [tmp_path / "m.pt2", "--format", "pt2", "--int8", tmp_path]
    code, _, err = run_tool("export", *words)
    assert_one_sentence(code, err, "--int8 needs --format onnx, got pt2")
    (tmp_path / "x.onnx").write_text("<html>")
    with pytest.raises(Exception, match="cannot be read as ONNX"):
        ExportedModel(tmp_path / "x.onnx")


@pytest.mark.parametrize(("kind", "call"), [("pt2", "export.export"), ("onnx", "onnx.export")])
def test_a_network_that_torch_cannot_export(
    tiny: Path,
    tmp_path: Path,
    run_tool: RunTool,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    call: str,
) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise RuntimeError("step 1/3 failed\n" * 9) from ValueError("\ndata-dependent size u0\n")

    monkeypatch.setattr(f"torch.{call}", refuse)
    output = tmp_path / f"m.{kind}"
    words = ["model_path", checkpoint_of(tiny, tmp_path / "w.pth"), "--output", output]
    code, _, err = run_tool("export", "--config", tiny, *words, "--format", kind)
    assert_one_sentence(code, err, f"cannot export this network to {kind}: data-dependent size u0")
    assert not output.exists()


@pytest.mark.slow
def test_adaptive_pooling_is_why_pooling_is_a_matrix_product() -> None:
    """The ONNX exporter rejects adaptive pooling for dynamic sizes or gives different numbers."""

    class Pool(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.adaptive_avg_pool2d(x, 6)

    free = torch.export.Dim.DYNAMIC
    with pytest.raises(Exception):  # noqa: B017
        program = torch.onnx.export(
            Pool(), (torch.zeros(1, 2, 13, 17),), dynamo=True, dynamic_shapes=({2: free, 3: free},)
        )
        x = torch.randn(1, 2, 20, 11)
        (found,) = program(x)
        torch.testing.assert_close(found, nn.functional.adaptive_avg_pool2d(x, 6))


def test_a_checkpoint_alone_predicts_from_any_folder(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = checkpoint_of(tiny, tmp_path / "best.pth")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    image = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    predictor = load_predictor(path)
    assert predictor.predict(image).shape == (48, 64) and predictor.crop == (33, 41)
    assert load_predictor(path, overrides=["test_h", "41"]).crop == (41, 41)
    old = torch.load(path, weights_only=True)
    torch.save(old["state_dict"], tmp_path / "old.pth")
    with pytest.raises(Exception, match=r"holds no config.*config='config/"):
        load_predictor(tmp_path / "old.pth")
    assert (
        load_predictor(tmp_path / "old.pth", config=tiny).predict(image) == predictor.predict(image)
    ).all()


@pytest.mark.parametrize(
    ("words", "size"),
    [
        ([], None),
        (["arch", "psa"], (33, 41)),
        (["backbone", "timm/swin_tiny_patch4_window7_224"], (33, 41)),
        (["backbone", "torchvision/swin_t"], (33, 41)),
    ],
)
def test_networks_of_a_fixed_size(
    tiny: Path, words: list[str], size: tuple[int, int] | None
) -> None:
    assert export.fixed_size(load_config(tiny, words)) == size
