"""Weight files that do not fit: the message says what the file is and which key or value fits."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from model import build_model, load_pretrained, load_trained, start_network
from model.resnet import ResNet
from tests.conftest import RunTool, assert_one_sentence
from util.config import load_config
from util.error import CheckpointError, UserError
from util.training.weight_file import state_dict_of

PSA = {"arch": "psa"}


def resnet(path: Path, layers: int = 18) -> Path:
    torch.save(ResNet(layers, deep_base=False).state_dict(), path)
    return path


def test_the_backbone_and_the_network_mixed_up(
    tiny: Path, tmp_path: Path, run_tool: RunTool
) -> None:
    backbone = resnet(tmp_path / "resnet18.pth")
    assert run_tool("train", "--config", tiny)[0] == 0
    trained = tmp_path / "run/model/train_epoch_1.pth"
    new = ["--config", tiny, "save_path", tmp_path / "new/model"]
    code, _, err = run_tool("train", *new, "TRAIN.init_weight", trained)
    assert_one_sentence(code, err, f"{trained} is a trained PSPNet", f"set TRAIN.weight {trained}")
    part = "resnet18.pth is a ResNet-18 backbone, not a trained network: set it in TRAIN.init_wei"
    code, _, err = run_tool("train", *new, "TRAIN.weight", backbone)
    assert_one_sentence(code, err, part)
    image = tmp_path / "data/images/p0.png"
    for tool, *words in (["demo", "--image", image], ["test"]):
        code, _, err = run_tool(tool, "--config", tiny, *words, "TEST.model_path", backbone)
        assert_one_sentence(code, err, part)


@pytest.mark.parametrize(
    ("was", "now", "part"),
    [
        ({}, {"layers": 34}, "has a ResNet-18, but TRAIN.layers is 34: set TRAIN.layers 18, or"),
        (
            {},
            {"backbone": "resnet34"},
            "a ResNet-18, but TRAIN.backbone is resnet34: set TRAIN.backbone resnet18, or",
        ),
        (
            {},
            {"backbone": "torchvision/resnet18"},
            "a ResNet-18, but TRAIN.backbone is torchvision/resnet18: set TRAIN.backbone resnet18",
        ),
        (
            {"backbone": "torchvision/resnet18"},
            {},
            "a backbone of torchvision or timm, but TRAIN.layers is 18: set TRAIN.backbone to",
        ),
        ({}, PSA, "holds PSPNet weights, but TRAIN.arch is psa: set TRAIN.arch psp, or"),
        (
            {"arch": "icnet"},
            {},
            "holds ICNet weights, but TRAIN.arch is psp: set TRAIN.arch icn",
        ),
        (
            PSA,
            PSA | {"psa_type": 0},
            "with both branches, but TRAIN.psa_type is 0: set TRAIN.psa_type 2, or",
        ),
        (
            PSA | {"psa_type": 1},
            PSA,
            "with one branch, but TRAIN.psa_type is 2: set TRAIN.psa_type 0 or 1, or",
        ),
        ({}, {"classes": 4}, "has 3 classes, but DATA.classes is 4: set DATA.classes 3, choose"),
        ({"arch": "icnet"}, {"arch": "icnet", "classes": 4}, "has 3 classes, but DATA.classes is"),
    ],
)
def test_other_networks_are_named(tiny: Path, was: dict, now: dict, part: str) -> None:
    cfg, path = load_config(tiny), tiny.parent / "w.pth"
    torch.save(build_model(replace(cfg, **was)).state_dict(), path)
    with pytest.raises(CheckpointError, match=f"^{path} .*{part}"):
        load_trained(replace(cfg, **now), path)
    if "classes" in now:
        start_network(replace(cfg, **now, weight=str(path)))
    else:
        with pytest.raises(CheckpointError, match=f"^{path} .*{part}"):
            start_network(replace(cfg, **now, weight=str(path)))


def test_backbones_of_another_depth_are_named(tiny: Path) -> None:
    path = resnet(tiny.parent / "resnet18.pth")
    cfg = replace(load_config(tiny), init_weight=str(path))
    load_pretrained(cfg)
    with pytest.raises(UserError, match=r"has a ResNet-18, but TRAIN\.layers is 34: set TRAIN\.la"):
        load_pretrained(replace(cfg, layers=34))
    load_pretrained(replace(cfg, backbone="torchvision/resnet18"))


NETWORK = {"layer1.0.conv1.weight": torch.ones(1), "cls.4.weight": torch.ones(2)}
BACKBONE = {"layer1.0.conv1.weight": torch.ones(1), "fc.weight": torch.ones(2)}
OTHER = {"layer1.0.conv1.weight": torch.zeros(1), "cls.4.weight": torch.zeros(2)}


def under(prefix: str, state: dict[str, Tensor] = NETWORK) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in state.items()}


@pytest.mark.parametrize(
    "content",
    [
        *(under(f"{p}.") for p in ("student", "encoder", "ema_model", "model", "net", "backbone")),
        {"state_dict": under("model.student.module.")},
        under("ema.module."),
        {**under("student."), **under("ema_model.", OTHER)},
        {**under(""), **under("ema.", OTHER)},
        {**under("model."), **under("model_ema.module.", OTHER)},
        {**under("ema_model."), "initted": torch.tensor(True), "step": torch.tensor(7)},
    ],
)
def test_prefixes_without_doubt_are_removed(content: dict) -> None:
    found = state_dict_of(content, source="f")
    assert found.keys() == NETWORK.keys()
    assert all(torch.equal(found[name], value) for name, value in NETWORK.items())


def test_prefixes_of_backbones_are_removed() -> None:
    assert state_dict_of(under("encoder.", BACKBONE), source="f").keys() == BACKBONE.keys()


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (
            {**under("student."), **under("teacher.")},
            "f holds several networks, whose names begin with student. and teacher.: save the tens",
        ),
        (
            {**under("encoder.", BACKBONE), "decoder.a": torch.ones(1), "head.b": torch.ones(1)},
            "f holds a network whose names begin with encoder. and 2 other tensors (decoder.a, hea",
        ),
    ],
)
def test_prefixes_in_doubt_are_named(content: dict, part: str) -> None:
    with pytest.raises(CheckpointError, match=f"^{re.escape(part)}"):
        state_dict_of(content, source="f")


@pytest.mark.parametrize(
    "state",
    [
        {"backbone.net.layer1.0.conv1.weight": torch.ones(1), "cls.4.weight": torch.ones(1)},
        {"backbone.net.layer1.0.conv1.weight": torch.ones(1), "head.weight": torch.ones(1)},
        {"features.0.weight": torch.ones(1)},
        {"body.layer1.0.conv1.weight": torch.ones(1), "head.fc.weight": torch.ones(1)},
    ],
)
def test_names_of_networks_with_other_backbones_stay(state: dict) -> None:
    assert state_dict_of(state, source="f").keys() == state.keys()
