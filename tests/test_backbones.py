"""Backbones of torchvision and timm: detected properties, training, weights, mistakes."""

from pathlib import Path

import pytest
import torch

from model import build_model, load_pretrained
from model.backbones import build_backbone, traits_of
from model.psanet import PSANet
from tests.conftest import RunTool, assert_one_sentence
from tests.helpers.backbones import SIDE, try_network, try_tools
from util.config import load_config
from util.error import CheckpointError, ConfigError
from util.inference.network import fold_batchnorm

timm = pytest.importorskip("timm")

# name, last stages, channels, sides are multiples of, features of 97 x 97 (or the next multiple)
FOUND = [
    ("torchvision/resnet18", ("layer3", "layer4"), (256, 512), 1, (4, 4)),
    ("torchvision/resnet50", ("layer3", "layer4"), (1024, 2048), 1, (13, 13)),
    ("torchvision/mobilenet_v3_large", ("features.12", "features.16"), (112, 960), 1, (7, 7)),
    ("torchvision/convnext_tiny", ("features.5", "features.7"), (384, 768), 1, (3, 3)),
    ("torchvision/swin_t", ("features.5", "features.7"), (384, 768), 1, (3, 3)),
    ("timm/test_resnet", (-2, -1), (192, 96), 1, (13, 13)),
    ("timm/test_efficientnet", (-2, -1), (48, 64), 1, (13, 13)),
    ("timm/convnextv2_atto", (-2, -1), (160, 320), 1, (12, 12)),
    ("timm/vit_tiny_patch16_224", (-5, -1), (192, 192), 1, (7, 7)),
    ("timm/swin_tiny_patch4_window7_224", (-2, -1), (384, 768), 4, (4, 4)),
]


@pytest.mark.parametrize(("name", "stages", "channels", "step", "size"), FOUND)
def test_detected_properties(
    name: str, stages: tuple, channels: tuple, step: int, size: tuple[int, int]
) -> None:
    traits = traits_of(name)
    assert (traits.stages, traits.channels, traits.step) == (stages, channels, step)
    side = -(-97 // step) * step
    assert traits.feature_size(side, side) == size


# The quick ones; `python tests/helpers/backbones.py` tries all of its list.
@pytest.mark.slow
@pytest.mark.parametrize("name", ["timm/regnety_004", "timm/vit_tiny_patch16_224"])
def test_families(name: str) -> None:
    """Forward, backward, overfitting two images, prediction, torch.export."""
    row = try_network(name)
    assert row["right"] > 0.97, row
    assert row["predicted"] == (SIDE, SIDE)
    assert row["program"] < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("name", ["timm/test_efficientnet"])
def test_families_with_the_tools(tmp_path: Path, name: str) -> None:
    """Trained, stopped and resumed to the bit, tested, exported to ONNX."""
    row = try_tools(name, tmp_path)
    assert (row["resume"], row["test"]) == ("yes", "yes")
    assert float(row["onnx"]) < 1e-4


SMALL = ["timm/test_resnet", "timm/test_efficientnet", "timm/test_vit", "timm/test_convnext"]


@pytest.mark.parametrize("name", SMALL)
def test_trains_resumes_to_the_bit_and_tests(
    tiny: Path, tmp_path: Path, run_tool: RunTool, name: str
) -> None:
    """With crops that are not 8k+1."""
    words = ["--config", tiny, "backbone", name, "train_h", 40, "train_w", 36]
    words += ["test_h", 40, "test_w", 36, "epochs", 2]
    weights = []
    for folder in ("once", "twice"):
        run = [*words, "save_path", tmp_path / folder / "model"]
        if folder == "twice":  # simulate a stop after the first epoch
            code, _, err = run_tool("train", *run, "save_every_steps", 1)
            assert code == 0, err
            for path in (tmp_path / "twice/model").glob("train_epoch_2.pth"):
                path.unlink()
        code, _, err = run_tool("train", *run, *["resume", "auto"] * (folder == "twice"))
        assert code == 0, err
        path = tmp_path / folder / "model/train_epoch_2.pth"
        weights.append(torch.load(path, weights_only=True)["state_dict"])
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(value, weights[1][key]) for key, value in weights[0].items())
    code, out, err = run_tool("test", *words, "save_path", tmp_path / "once/model")
    assert code == 0 and "mIoU" in out + err


def test_psanet_reads_the_size_of_the_features(tiny: Path) -> None:
    words = ["arch", "psa", "backbone", "timm/test_vit", "train_h", "96", "train_w", "64"]
    words += ["shrink_factor", "1"]
    network = build_model(load_config(tiny, words))
    assert isinstance(network, PSANet) and (network.psa.mask_h, network.psa.mask_w) == (11, 7)
    assert network.train()(torch.randn(2, 3, 96, 64)).logits.shape == (2, 3, 96, 64)


@pytest.mark.parametrize("name", ["timm/test_resnet", "timm/test_efficientnet", "timm/test_vit"])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_timm_file_fills_its_backbone(tiny: Path, tmp_path: Path, name: str, suffix: str) -> None:
    torch.manual_seed(5)
    whole = timm.create_model(name.partition("/")[2])
    path = tmp_path / f"model{suffix}"
    if suffix == ".pth":
        torch.save(whole.state_dict(), path)
    else:
        from safetensors.torch import save_file

        save_file(whole.state_dict(), path)
    cfg = load_config(tiny, ["backbone", name, "init_weight", str(path)])
    backbone = load_pretrained(cfg).backbone
    image = torch.randn(1, 3, 160, 160)
    with torch.no_grad():
        found = backbone.eval()(image)[1]
        if name == "timm/test_vit":
            wanted = whole.eval().forward_intermediates(image, intermediates_only=True)[-1]
            torch.testing.assert_close(found, wanted)
    own, theirs = backbone.state_dict(), whole.state_dict()
    filled = sum(any(torch.equal(v, t) for t in theirs.values()) for v in own.values())
    assert filled == len(own)


def test_torchvision_files_and_what_does_not_fit(tiny: Path, tmp_path: Path) -> None:
    from torchvision import models

    torch.manual_seed(5)
    whole, path = models.resnet18(), tmp_path / "resnet18.pth"
    torch.save(whole.state_dict(), path)
    words = ["backbone", "torchvision/resnet18", "init_weight", str(path)]
    backbone = load_pretrained(load_config(tiny, words)).backbone
    name = "layer4.1.conv2.weight"
    assert torch.equal(backbone.net.state_dict()[name], whole.state_dict()[name])
    words[1] = "torchvision/resnet34"
    with pytest.raises(CheckpointError, match=r"missing in the file \(layer1\.2\.conv1"):
        load_pretrained(load_config(tiny, words))
    torch.save({**whole.state_dict(), "head.odd": torch.zeros(1)}, path)
    words[1] = "torchvision/resnet18"
    with pytest.raises(CheckpointError, match=r"1 unknown to the network \(head.odd\)"):
        load_pretrained(load_config(tiny, words))
    (tmp_path / "web.safetensors").write_text("<html>")
    words[3] = str(tmp_path / "web.safetensors")
    with pytest.raises(CheckpointError, match=r"web\.safetensors"):
        load_pretrained(load_config(tiny, words))


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["backbone", "resnet51"], ["TRAIN.backbone must be resnet and one of 18", "resnet51"]),
        (["backbone", "resnet/50"], ["torchvision/<name> or timm/<name>, got resnet/50"]),
        (["backbone", "timm/resnet_50"], ["timm has no network resnet_50", "nearest: timm/resnet"]),
        (["backbone", "torchvision/swin_x"], ["nearest: torchvision/swin_"]),
        (["backbone", "torchvision/vit_b_16"], ["cannot be used", "model/README.md"]),
        (
            ["backbone", "timm/test_resnet", "init_weight", "initmodel/resnet{layers}_v2.pth"],
            ["is for ResNets", "set init_weight to pretrained"],
        ),
        (
            ["backbone", "timm/test_resnet", "activation_checkpointing", "True"],
            ["activation_checkpointing", "set it to False"],
        ),
        (
            ["backbone", "timm/swin_tiny_patch4_window7_224", "train_h", "90"],
            ["train_h must be a multiple of 4, got 90; nearest: 88, 92"],
        ),
    ],
)
def test_mistakes(tiny: Path, run_tool: RunTool, words: list[str], parts: list[str]) -> None:
    code, _, err = run_tool("train", "--config", tiny, *words)
    assert_one_sentence(code, err, *parts)


def test_pretrained_without_a_connection_is_one_sentence(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", refuse)
    for backbone in ("torchvision/resnet18", "resnet18"):
        cfg = load_config(tiny, ["backbone", backbone, "init_weight", "pretrained"])
        with pytest.raises(CheckpointError, match=r"no route to host.*connected machine"):
            load_pretrained(cfg)
    monkeypatch.setattr("timm.create_model", refuse)
    cfg = load_config(tiny, ["backbone", "timm/test_resnet", "init_weight", "pretrained"])
    with pytest.raises((CheckpointError, ConfigError), match="no route to host"):
        load_pretrained(cfg)


def test_a_batchnorm_with_an_activation_is_not_folded_away() -> None:
    """timm's regnets put the ReLU into the BatchNorm."""
    torch.manual_seed(0)
    backbone = build_backbone("timm/test_efficientnet").eval()
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        wanted = backbone(image)[1]
        torch.testing.assert_close(fold_batchnorm(backbone)(image)[1], wanted)
