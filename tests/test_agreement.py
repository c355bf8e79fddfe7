"""The recipe against the config stored in a checkpoint: what changes the network is refused."""

import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from model import build_model, load_predictor, load_trained, start_network
from tests.conftest import RunTool, assert_one_sentence
from util.config import Config, dump_config, load_config
from util.error import CheckpointError, ConfigError
from util.training.weight_file import load_file

PSA = {"arch": "psa", "test_h": 33, "test_w": 33}


def trained(cfg: Config, path: Path, **more: object) -> Path:
    """Write a checkpoint of the config's network, with random weights."""
    torch.manual_seed(0)
    content = {"state_dict": build_model(cfg).state_dict(), "config": dump_config(cfg), **more}
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path)
    return path


@pytest.mark.parametrize(
    ("was", "now", "parts"),
    [
        ({"psa_type": 0}, {"psa_type": 1}, ("TRAIN.psa_type 1", "TRAIN.psa_type 0")),
        ({}, {"psa_softmax": False}, ("TRAIN.psa_softmax False", "TRAIN.psa_softmax True")),
        (
            {},
            {"normalization_factor": None, "psa_softmax": False},
            (
                "TRAIN.psa_softmax False TRAIN.normalization_factor ''",
                "TRAIN.psa_softmax True TRAIN.normalization_factor 1.0",
            ),
        ),
        ({"mask_h": 3}, {"mask_w": 3}, ("TRAIN.mask_h '' TRAIN.mask_w 3", "TRAIN.mask_h 3 ")),
        ({"train_h": 65}, {"train_w": 65}, ("TRAIN.train_h 33 TRAIN.train_w 65", "train_h 65 ")),
        ({"compact": True}, {}, ("TRAIN.compact False", "TRAIN.compact True")),
        (
            {},
            {"shrink_factor": 1, "mask_h": 5, "mask_w": 5},
            ("TRAIN.shrink_factor 1", "_factor 2 "),
        ),
        ({"arch": "psp"}, {"psa_type": 1}, ("TRAIN.arch psa", "TRAIN.arch psp")),
        ({"layers": 34}, {}, ("TRAIN.layers 18", "TRAIN.layers 34")),
        (
            {"layers": 34},
            {"backbone": "resnet18"},
            ("TRAIN.backbone resnet18", "TRAIN.layers 34 TRAIN.backbone ''"),
        ),
        ({"classes": 4}, {}, ("DATA.classes 3", "DATA.classes 4")),
    ],
)
def test_another_network_is_refused(tiny: Path, was: dict, now: dict, parts: tuple) -> None:
    cfg = load_config(tiny)
    path = trained(replace(cfg, **PSA | was), tiny.parent / "w.pth")
    with pytest.raises(CheckpointError) as error:
        load_trained(replace(cfg, **PSA | now), path)
    text = str(error.value)
    has, _, trained_with = text.partition(f", but {path} was trained with ")
    assert has.startswith("the recipe has ") and parts[0] in has, text
    assert parts[1] in trained_with.partition(":")[0] + " ", text
    assert "set that, or choose another file" in trained_with


@pytest.mark.parametrize(
    ("was", "now"),
    [
        ({}, {"psa_type": 0, "normalization_factor": None, "compact": True, "train_h": 65}),
        ({}, {"layers": 50, "backbone": "resnet18"}),
        ({"zoom_factor": 8, "classifier": "fused"}, {"zoom_factor": 2, "classifier": "stepwise"}),
        (PSA | {"normalization_factor": None}, PSA | {"normalization_factor": 25.0}),
        (PSA, PSA | {"mask_h": 5, "mask_w": 5}),
        (PSA | {"mask_h": 3, "mask_w": 3}, PSA | {"mask_h": 3, "mask_w": 3, "train_h": 65}),
        ({"arch": "icnet"}, {"arch": "icnet", "train_h": 65, "psa_type": 1}),
        ({"backbone": "torchvision/resnet18"}, {"backbone": "torchvision/resnet18", "layers": 34}),
    ],
)
def test_the_same_network_in_other_words_loads(tiny: Path, was: dict, now: dict) -> None:
    cfg = load_config(tiny)
    path = trained(replace(cfg, **was), tiny.parent / "w.pth")
    load_trained(replace(cfg, **now), path)


def test_other_files_load_as_before(tiny: Path) -> None:
    """Without a config, with one of another version, or with another kind of entry."""
    cfg = replace(load_config(tiny), **PSA, psa_type=0)
    other = replace(cfg, psa_type=1)
    path = trained(cfg, tiny.parent / "w.pth")
    content = load_file(path)
    for config in (None, {"TRAIN": {}}, "TRAIN:\n  key_of_tomorrow: 7\n", "DATA:\nMORE: [1]\n"):
        torch.save({**content, "config": config}, path)
        load_trained(other, path)
    torch.save({**content, "config": "TRAIN:\n  psa_type: 7\n"}, path)
    with pytest.raises(ConfigError, match=f"^the config in {path}: TRAIN.psa_type must be"):
        load_trained(other, path)


def test_every_tool_compares_the_network(tiny: Path, tmp_path: Path, run_tool: RunTool) -> None:
    keys = ["arch", "psa", "test_w", 33, "psa_type", 0]
    cfg = load_config(tiny, [str(word) for word in keys])
    path = trained(cfg, tmp_path / "run/model/train_epoch_1.pth", epoch=1)
    image = tmp_path / "data/images/p0.png"
    for words in (
        ["test"],
        ["demo", "--image", image],
        ["export", "--output", tmp_path / "x.onnx"],
        ["train", "save_path", tmp_path / "new/model", "TRAIN.weight", path],
        ["train", "TRAIN.resume", "auto", "epochs", 2],
    ):
        tool, *rest = words
        code, _, err = run_tool(tool, "--config", tiny, *rest, *keys, "psa_type", 1)
        assert_one_sentence(code, err, "the recipe has TRAIN.psa_type 1", "with TRAIN.psa_type 0")
    with pytest.raises(CheckpointError, match=r"TRAIN\.psa_type 1, but"):
        load_predictor(path, overrides=["psa_type", "1"])
    code, out, _ = run_tool("verify", "--checkpoint", path)
    assert code == 0 and "trained with: DATA.classes 3 TRAIN.arch psa TRAIN.layers 18 " in out
    assert "TRAIN.psa_type 0" in out


def test_fine_tuning_may_change_the_classes_alone(tiny: Path) -> None:
    cfg = load_config(tiny)
    path = trained(replace(cfg, **PSA, classes=9), tiny.parent / "w.pth")
    start_network(replace(cfg, **PSA, weight=str(path)))
    with pytest.raises(CheckpointError, match=r"has TRAIN\.psa_softmax False, but"):
        start_network(replace(cfg, **PSA, weight=str(path), psa_softmax=False))


def test_other_labels_are_reported_when_resuming(
    tiny: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cfg = load_config(tiny)
    content = load_file(trained(cfg, tiny.parent / "w.pth"))
    with caplog.at_level(logging.INFO):
        start_network(cfg, "w.pth", content)
        assert not caplog.messages
        start_network(replace(cfg, label_map={1: 0, 2: 1}, ignore_ids=[7]), "w.pth", content)
    assert caplog.messages == [
        "DATA.label_map was '' and is {1: 0, 2: 1} since w.pth was saved",
        "DATA.ignore_ids was [] and is [7] since w.pth was saved",
    ]
