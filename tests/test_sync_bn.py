"""Backbones on several processes: synchronised BatchNorm and unused parameters."""

import copy
import sys
from pathlib import Path

import pytest
import torch

from model import build_model
from model.backbones import build_backbone, traits_of
from tests.conftest import command
from util.config import load_config
from util.distributed.sync_bn import synchronise_batch_norm
from util.error import ConfigError
from util.extra.benchmark.step import group_of_one

pytest.importorskip("timm")


@pytest.mark.parametrize("on_gpu", [False, True])
@pytest.mark.parametrize("name", ["timm/test_efficientnet", "timm/test_resnet"])
def test_synchronised_batch_norm_keeps_activations(tiny: Path, name: str, on_gpu: bool) -> None:
    """Also those within timm's BatchNormAct2d; PyTorch's layer runs on a CPU in eval mode only."""
    network = build_model(load_config(tiny, ["backbone", name]))
    twin = synchronise_batch_norm(copy.deepcopy(network), on_gpu=on_gpu)
    assert not any(type(m) is torch.nn.BatchNorm2d for m in twin.modules())
    assert network.state_dict().keys() == twin.state_dict().keys()
    x = torch.randn(2, 3, 33, 33)
    with torch.no_grad():
        torch.testing.assert_close(twin.eval()(x).logits, network.eval()(x).logits)
    if on_gpu:
        return
    with group_of_one(torch.device("cpu")):
        torch.manual_seed(0)
        found = twin.train()(x).logits
    torch.manual_seed(0)
    torch.testing.assert_close(found, network.train()(x).logits, rtol=1e-4, atol=1e-4)
    for (key, one), (_, other) in zip(network.named_buffers(), twin.named_buffers(), strict=True):
        torch.testing.assert_close(one, other, msg=key)


def test_other_kinds_of_batch_norm_are_not_synchronised() -> None:
    class Odd(torch.nn.BatchNorm2d):
        pass

    for on_gpu in (False, True):
        with pytest.raises(ConfigError, match="sync_bn True cannot synchronise the Odd of this"):
            synchronise_batch_norm(torch.nn.Sequential(Odd(3)), on_gpu=on_gpu)


@pytest.mark.slow
def test_unused_parameters_do_not_stop_two_processes(tiny: Path) -> None:
    words = ["backbone", "timm/hrnet_w18_small", "train_h", 64, "train_w", 64]
    more = ["Distributed.num_processes", 2]
    run = command(sys.executable, "tool/train.py", "--config", tiny, *words, *more)
    assert run.returncode == 0, run.stderr
    backbone = build_backbone("timm/hrnet_w18_small")
    frozen = [name for name, p in backbone.net.named_parameters() if not p.requires_grad]
    assert len(frozen) == 42 and {name.partition(".")[0] for name in frozen} == {
        *("stage4", "incre_modules")
    }


def test_a_backbone_without_gradients_on_the_meta_device_is_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Then all parameters count as used."""

    def missing(*args: object, **keys: object) -> None:
        raise NotImplementedError("no backward pass on the meta device")

    traits_of.cache_clear()
    monkeypatch.setattr("torch.autograd.grad", missing)
    assert traits_of("timm/test_resnet").unused == ()
    traits_of.cache_clear()
