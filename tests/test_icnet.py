"""ICNet: counts, sizes of all heads, label guidance, a run through the tools."""

from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from model.icnet import ICNet
from model.identify import identify
from model.resnet import ResNet
from tests.conftest import RunTool, assert_one_sentence
from util.training.loss import build_loss


def test_parameters_and_macs_are_the_published_ones() -> None:
    with torch.device("meta"):
        network = ICNet(classes=19).eval()
        with FlopCounterMode(display=False) as counter:
            network(torch.zeros(1, 3, 1025, 2049))
    parameters = sum(p.numel() for name, p in network.named_parameters() if "aux" not in name)
    assert parameters / 25.5e6 == pytest.approx(1, abs=0.03)
    assert counter.get_total_flops() / 2 / 90e9 == pytest.approx(1, abs=0.03)


def test_sizes_of_all_heads() -> None:
    network = ICNet(layers=18, classes=5, zoom_factor=2)
    out = network.train()(torch.randn(2, 3, 65, 97))
    assert out.logits.shape == (2, 5, 17, 25)
    assert [a.shape[2:] for a in out.auxiliary] == [(9, 13), (5, 7)]
    sizes = network.label_sizes(65, 97)
    assert [tuple(x.shape[2:]) for x in (out.logits, *out.auxiliary)] == sizes
    out = network.eval()(torch.randn(1, 3, 65, 97))
    assert out.aux is None and out.auxiliary == ()
    network.upsamples = False
    assert network(torch.randn(1, 3, 65, 97)).logits.shape == (1, 5, 17, 25)
    assert [network.valid_side(side) for side in (1, 33, 34, 240, 1024)] == [33, 33, 65, 257, 1025]


def test_label_guidance_weighs_as_published() -> None:
    """1 at 1/4, 0.4 at 1/8, 0.16 at 1/16."""
    criterion = build_loss("ce", ignore_label=255, aux_weight=0.4, aux_scales=ICNet.aux_scales)
    total = criterion.losses(torch.tensor([1.0, 10.0, 100.0]), torch.ones(3))[0]
    assert total.item() == pytest.approx(1 + 0.4 * 10 + 0.16 * 100)


def test_weights_are_shared_and_imagenet_files_fit() -> None:
    network = ICNet(layers=18, classes=5)
    trunk = ResNet(18, classes=None)
    network.layer2.load_state_dict(trunk.layer2.state_dict())
    groups = network.param_groups()
    ids = [id(p) for group in groups for p in group["params"]]
    assert sorted(ids) == sorted(id(p) for p in network.parameters())
    assert identify(network.state_dict())["network"] == "ICNet"
    assert set(network.classifier_names()) <= set(network.state_dict())


@pytest.mark.slow
def test_trains_tests_and_resumes(tiny: Path, tmp_path: Path, run_tool: RunTool) -> None:
    words = ["--config", tiny, "arch", "icnet", "zoom_factor", 2, "train_h", 65, "train_w", 65]
    words += ["test_h", 65, "test_w", 65]
    code, _, err = run_tool("train", *words)
    assert code == 0, err
    code, _, err = run_tool("train", *words, "epochs", 2, "resume", "auto", "evaluate", "True")
    assert code == 0, err
    assert (tmp_path / "run/model/best.pth").is_file()
    code, out, err = run_tool("test", *words, "test_mode", "whole")
    assert code == 0 and "mIoU" in out + err


def test_mistakes(tiny: Path, run_tool: RunTool) -> None:
    words = ["--config", tiny, "arch", "icnet"]
    code, _, err = run_tool("train", *words, "train_h", 49)
    assert_one_sentence(code, err, "TRAIN.train_h must be 32*k+1, got 49; nearest: 33, 65")
    code, _, err = run_tool("train", *words, "backbone", "torchvision/resnet50")
    assert_one_sentence(code, err, "ICNet splits a ResNet", "got torchvision/resnet50")
