"""Networks: names and shapes, sizes of logits, parameter groups, ImageNet weights of all kinds."""

from pathlib import Path

import pytest
import torch

from model import build_model, check_network, load_pretrained
from model.identify import identify
from model.psanet import PSANet, largest_mask
from model.pspnet import PSPNet
from model.resnet import STRIDE_8, ResNet
from tests.conftest import ROOT
from util.config import Config, load_config
from util.error import CheckpointError, ConfigError
from util.extra.golden import load_state_names


def network_of(name: str) -> torch.nn.Module:
    """Build a network such as `psanet50_collect_classes21_crop465` on the meta device."""
    kind, *parts = name.split("_")
    layers = int(kind[6:])
    if kind.startswith("resnet"):
        return ResNet(layers, deep_base=parts[0] == "deep")
    classes = int(next(p for p in parts if p.startswith("classes"))[7:])
    if kind.startswith("pspnet"):
        return PSPNet(layers=layers, classes=classes)
    crop = int(next(p for p in parts if p.startswith("crop"))[4:])
    compact = "compact" in parts
    mask = largest_mask((crop - 1) // 8 + 1, 2, compact=compact)
    psa_type = 0 if "collect" in parts else 2
    return PSANet(
        layers=layers, classes=classes, compact=compact, mask_h=mask, mask_w=mask, psa_type=psa_type
    )


STATE_NAMES = load_state_names()


@pytest.mark.parametrize("name", STATE_NAMES)
def test_names_and_shapes_are_the_published_ones(name: str) -> None:
    with torch.device("meta"):
        network = network_of(name)
    found = [(key, tuple(value.shape)) for key, value in network.state_dict().items()]
    assert found == STATE_NAMES[name]


@pytest.mark.parametrize("zoom", [1, 2, 4, 8])
@pytest.mark.parametrize("network", [PSPNet, PSANet])
def test_size_of_logits(network: type, zoom: int) -> None:
    net = network(layers=18, classes=5, zoom_factor=zoom).train()
    out = net(torch.randn(2, 3, 41, 57))
    assert out.logits.shape == out.aux.shape == (2, 5, 5 * zoom + 1, 7 * zoom + 1)
    assert net.eval()(torch.randn(1, 3, 41, 57)).aux is None


def test_dilation_keeps_stride_8_and_weights_fit_both_ways() -> None:
    dense = ResNet(50, stages=STRIDE_8, classes=None)
    assert dense(torch.randn(1, 3, 65, 65)).shape == (1, 2048, 9, 9)
    dense.load_state_dict(ResNet(50, classes=None).state_dict())
    dilations = {
        layer: {m.dilation for m in getattr(dense, layer).modules() if hasattr(m, "dilation")}
        for layer in ("layer2", "layer3", "layer4")
    }
    assert (2, 2) in dilations["layer3"] and (4, 4) in dilations["layer4"]
    assert all(block.conv2.dilation == (4, 4) for block in dense.layer4)
    assert ResNet(18)(torch.randn(1, 3, 64, 64)).shape == (1, 1000)


def test_new_layers_learn_ten_times_faster() -> None:
    net = PSPNet(layers=18, classes=3)
    trunk, new = net.param_groups()
    assert (trunk["lr_scale"], new["lr_scale"]) == (1.0, 10.0)
    ids = [id(p) for group in (trunk, new) for p in group["params"]]
    assert sorted(ids) == sorted(id(p) for p in net.parameters())
    assert {id(p) for p in net.layer0.parameters()} <= {id(p) for p in trunk["params"]}


@pytest.fixture
def cfg(tiny: Path) -> Config:
    return load_config(tiny)


def imagenet_file(path: Path, *, deep_base: bool, layers: int = 18, kind: str = "full") -> Path:
    torch.manual_seed(3)
    state = ResNet(layers, deep_base=deep_base).state_dict()
    if kind == "slim":  # float16, without classifier and counters
        state = {
            k: v.half()
            for k, v in state.items()
            if not k.startswith("fc") and not k.endswith("num_batches_tracked")
        }
    torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}}, path)
    return path


@pytest.mark.parametrize("kind", ["full", "slim"])
@pytest.mark.parametrize("deep_base", [True, False])
def test_imagenet_files_fill_the_trunk(
    cfg: Config, tmp_path: Path, deep_base: bool, kind: str
) -> None:
    path = imagenet_file(tmp_path / "w.pth", deep_base=deep_base, kind=kind)
    cfg = load_config(tmp_path / "tiny.yaml", ["init_weight", str(path)])
    net = load_pretrained(cfg)
    torch.manual_seed(3)
    wanted = ResNet(18, deep_base=deep_base)
    assert net.layer0[0].weight.shape[-1] == (3 if deep_base else 7)  # the stem of the file
    parts = {"layer0": wanted.stem(), "layer1": wanted.layer1, "layer4": wanted.layer4}
    for part, module in parts.items():
        state = getattr(net, part).state_dict()
        for name, value in module.state_dict().items():
            assert state[name].dtype == value.dtype
            torch.testing.assert_close(state[name], value, rtol=1e-3, atol=1e-4)


def test_different_stem_is_reported(cfg: Config, tmp_path: Path) -> None:
    path = imagenet_file(tmp_path / "w.pth", deep_base=False)
    words = ["init_weight", str(path), "deep_base", "True"]
    with pytest.raises(ConfigError, match=r"deep_base True asks for the deep stem .* plain 7x7"):
        load_pretrained(load_config(tmp_path / "tiny.yaml", words))


def test_backbone_of_another_depth_is_rejected(cfg: Config, tmp_path: Path) -> None:
    path = imagenet_file(tmp_path / "w.pth", deep_base=True, layers=34)
    with pytest.raises(CheckpointError, match=r"w\.pth has a ResNet-34, but TRAIN\.layers is"):
        load_pretrained(load_config(tmp_path / "tiny.yaml", ["init_weight", str(path)]))


def test_a_missing_weight_file_says_where_to_get_one(cfg: Config, tmp_path: Path) -> None:
    imagenet_file(tmp_path / "other.pth", deep_base=True)
    words = ["init_weight", str(tmp_path / "none.pth")]
    with pytest.raises(CheckpointError) as error:
        load_pretrained(load_config(tmp_path / "tiny.yaml", words))
    text = str(error.value)
    assert "holds other.pth" in text and "initmodel/README.md" in text and "init_weight ''" in text


def test_masks_of_psanet_follow_the_crop(tiny: Path) -> None:
    def built(*words: str) -> PSANet:
        return build_model(load_config(tiny, ["arch", "psa", "mask_h", "", "mask_w", "", *words]))

    assert built("train_h", "65").psa.mask_h == 9  # map of 5
    assert built("train_h", "65", "compact", "True").psa.mask_h == 5
    with pytest.raises(ConfigError, match=r"mask_h must be at most .* 9 for a crop of 65"):
        built("train_h", "65", "mask_h", "11")
    assert built("train_h", "65", "compact", "True", "mask_h", "59").psa.mask_h == 5
    assert built("normalization_factor", "").psa.normalization_factor == 25  # mask 5x5


def test_a_mask_that_compact_replaces_is_reported(
    tiny: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Recipes with filled masks run with TRAIN.compact True alone."""
    cfg = load_config(ROOT / "config/ade20k/ade20k_psanet50.yaml", ["compact", "True"])
    check_network(cfg, batch_norm_images=16)
    (text,) = caplog.messages
    assert "the mask is the map, 30x30; mask_h 59 and mask_w 59 are not used" in text


def test_identify_tells_networks_apart() -> None:
    with torch.device("meta"):
        found = {name: identify(network_of(name).state_dict()) for name in STATE_NAMES}
    psp = found["pspnet101_classes21"]
    assert psp["network"] == "PSPNet with 4 bins" and psp["backbone"] == "ResNet-101"
    assert psp["classes"] == "21" and psp["stem"].startswith("deep")
    assert "465 (mask 59x59)" in found["psanet50_classes150_crop465"]["crop"]
    assert "705 (compact)" in found["psanet101_classes19_crop705_compact"]["crop"]
    assert found["resnet50_plain_base"]["stem"].startswith("plain")
    assert found["resnet34_deep_base"]["backbone"] == "ResNet-34"
    with pytest.raises(CheckpointError, match="neither a ResNet"):
        identify({"a.weight": torch.zeros(1)})
