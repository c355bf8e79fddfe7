"""Weights between layouts: published files, fine-tuning, conversion; the attention viewer."""

from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch

from model.psanet import PSANet
from model.pspnet import PSPNet
from model.resnet import ResNet
from tests.conftest import RunTool, assert_one_sentence
from util.data.image import read_image, read_label


def published(path: Path, network: torch.nn.Module) -> Path:
    """Write a file in the published format: `module.` names, epoch, optimizer."""
    state = {f"module.{name}": value for name, value in network.state_dict().items()}
    torch.save({"epoch": 100, "state_dict": state, "optimizer": {}}, path)
    return path


def test_a_published_checkpoint_tests_trains_and_demos(
    tiny: Path, tmp_path: Path, run_tool: RunTool
) -> None:
    torch.manual_seed(0)
    path = published(tmp_path / "train_epoch_100.pth", PSPNet(layers=18, classes=3))
    code, out, err = run_tool("test", "--config", tiny, "TEST.model_path", path)
    assert code == 0 and "Eval result: mIoU" in out, err
    assert (tmp_path / "run/result/epoch_100/val/ss/scores.json").is_file()
    code, _, err = run_tool("train", "--config", tiny, "TRAIN.weight", path)
    assert code == 0, err
    image = tmp_path / "data/images/p0.png"
    words = ["--config", tiny, "--image", image, "TEST.model_path", path]
    assert run_tool("demo", *words)[0] == 0
    # Its optimizer state is not ours: the message says so and gives the fix.
    words = ["TRAIN.resume", path, "save_path", tmp_path / "other/model"]
    code, _, err = run_tool("train", "--config", tiny, *words)
    assert_one_sentence(code, err, "no optimizer state", f"TRAIN.weight {path}")


def test_fine_tuning_skips_exactly_the_classifier(
    tiny: Path, tmp_path: Path, run_tool: RunTool
) -> None:
    path = published(tmp_path / "w.pth", PSPNet(layers=18, classes=21))
    code, out, err = run_tool("train", "--config", tiny, "TRAIN.weight", path)
    assert code == 0, err
    skipped = "cls.4.weight, cls.4.bias, aux.4.weight, aux.4.bias start from random weights"
    assert out.count(skipped) == 1
    path = published(tmp_path / "a.pth", PSANet(layers=18, classes=21, mask_h=5, mask_w=5))
    code, _, err = run_tool(
        "train",
        "--config",
        tiny,
        "TRAIN.weight",
        path,
        "TRAIN.resume",
        "auto",
        "save_path",
        tmp_path / "new/model",
    )
    assert_one_sentence(
        code, err, "holds PSANet weights, but TRAIN.arch is psp: set TRAIN.arch psa"
    )


@pytest.mark.parametrize("is_published", [True, False])
def test_conversion_there_and_back(tmp_path: Path, run_tool: RunTool, is_published: bool) -> None:
    torch.manual_seed(0)
    network = PSPNet(layers=18, classes=5)
    source = published(tmp_path / "w.pth", network)
    words = ["--from", source, "--to", tmp_path / "out/x.pth"]
    code, out, err = run_tool("convert_weights", *words, *["--published"] * is_published)
    assert code == 0, err
    assert "network: PSPNet with 4 bins" in out and "classes: 5" in out
    assert "backbone: ResNet-18" in out and "SHA-256" in out
    content = torch.load(tmp_path / "out/x.pth", weights_only=True)
    prefix, state = ("module.", content["state_dict"]) if is_published else ("", content)
    wanted = network.state_dict()
    assert list(state) == [prefix + name for name in wanted]
    assert all(torch.equal(state[prefix + name], value) for name, value in wanted.items())
    code, _, err = run_tool("convert_weights", *words)
    assert_one_sentence(code, err, "exists: remove it or choose another name")


def test_conversion_completes_float16_files(tmp_path: Path, run_tool: RunTool) -> None:
    state = {
        name: value.half()
        for name, value in ResNet(18, deep_base=False).state_dict().items()
        if "num_batches" not in name and not name.startswith("fc")
    }
    torch.save(state, tmp_path / "half.pth")
    words = ["--from", tmp_path / "half.pth", "--to", tmp_path / "r.pth"]
    code, out, err = run_tool("convert_weights", *words)
    assert code == 0 and "stem: plain" in out, err
    found = torch.load(tmp_path / "r.pth", weights_only=True)
    network = ResNet(18, deep_base=False, classes=None)
    network.load_state_dict(found)  # strict: complete
    assert all(v.dtype == torch.float32 for v in found.values() if v.dim())


def test_torchvision_weights_use_its_api(
    tmp_path: Path, run_tool: RunTool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def download(url: str, **options: object) -> dict:
        asked.append((url, options["check_hash"]))
        if len(asked) == 1:
            return ResNet(18, deep_base=False).state_dict()
        raise URLError("no network")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", download)
    words = ["--from", "torchvision", "--name", "resnet18", "--to", tmp_path / "r.pth"]
    code, out, err = run_tool("convert_weights", *words)
    assert code == 0 and "backbone: ResNet-18" in out and "classes: 1000" in out, err
    assert "resnet18" in asked[0][0] and asked[0][1] is True
    (tmp_path / "r.pth").unlink()
    code, _, err = run_tool("convert_weights", *words)
    assert_one_sentence(code, err, "could not download", "give its path instead")


def test_conversion_mistakes(tmp_path: Path, run_tool: RunTool) -> None:
    target = ["--to", tmp_path / "x.pth"]
    code, _, err = run_tool("convert_weights", "--from", tmp_path / "none.pth", *target)
    assert_one_sentence(code, err, "no weight file")
    code, _, err = run_tool(
        "convert_weights", "--from", "torchvision", "--name", "resnet51", *target
    )
    assert_one_sentence(code, err, "resnet51 is unknown, choose one of resnet101", "nearest: ")
    torch.save({"a.b": torch.zeros(1)}, tmp_path / "odd.pth")
    code, _, err = run_tool("convert_weights", "--from", tmp_path / "odd.pth", *target)
    assert_one_sentence(code, err, "this is neither a ResNet")
    assert not (tmp_path / "x.pth").exists()


def test_nonfinite_weights_are_named(tmp_path: Path, run_tool: RunTool) -> None:
    network = PSPNet(layers=18, classes=5)
    with torch.no_grad():
        network.cls[4].bias[1] = torch.nan
    source = published(tmp_path / "w.pth", network)
    for words in (
        ["verify", "--checkpoint"],
        ["convert_weights", "--to", tmp_path / "x", "--from"],
    ):
        code, _, err = run_tool(*words, source)
        assert_one_sentence(code, err, "cls.4.bias")
    assert not (tmp_path / "x").exists()


def test_conversion_touches_no_other_file(tmp_path: Path, run_tool: RunTool) -> None:
    source = published(tmp_path / "w.pth", PSPNet(layers=18, classes=5))
    mine = tmp_path / "x.pth.tmp"
    mine.write_text("mine")
    code, _, err = run_tool("convert_weights", "--from", source, "--to", tmp_path / "x.pth")
    assert_one_sentence(code, err, "x.pth.tmp exists")  # the name of the temporary file
    assert mine.read_text() == "mine" and not (tmp_path / "x.pth").exists()


def test_conversion_refuses_what_could_not_be_read_again(tmp_path: Path, run_tool: RunTool) -> None:
    network = PSPNet(layers=18, classes=5)
    source = published(tmp_path / "w.pth", network)
    code, _, err = run_tool("convert_weights", "--from", source, "--to", tmp_path / "x.safetensors")
    assert_one_sentence(code, err, "x.safetensors: this tool writes PyTorch files", ".pth")
    network.double().cls[4].bias.data[0] = 1e300  # infinite in float32
    source = published(tmp_path / "w.pth", network)
    code, _, err = run_tool("convert_weights", "--from", source, "--to", tmp_path / "x.pth")
    assert_one_sentence(code, err, "w.pth: 1 with infinite or NaN values (module.cls.4.bias)")
    assert [path.name for path in tmp_path.iterdir()] == ["w.pth"]


def test_verify_describes_a_checkpoint(tmp_path: Path, run_tool: RunTool) -> None:
    path = published(tmp_path / "w.pth", PSANet(layers=18, classes=7, mask_h=21, mask_w=21))
    code, out, _ = run_tool("verify", "--checkpoint", path)
    assert code == 0
    assert "network: PSANet, collect and distribute" in out and "classes: 7" in out
    assert "crop: 161 (mask 21x21)" in out
    code, _, err = run_tool("verify", "metric", "--checkpoint", path)
    assert_one_sentence(code, err, "--checkpoint describes a file and checks no cases, got metric")


@pytest.mark.parametrize(("psa_type", "names"), [(0, ["collect"]), (2, ["collect", "distribute"])])
def test_attention_viewer(
    tiny: Path, tmp_path: Path, run_tool: RunTool, psa_type: int, names: list[str]
) -> None:
    torch.manual_seed(0)
    network = PSANet(layers=18, classes=3, mask_h=5, mask_w=5, psa_type=psa_type)
    path = published(tmp_path / "w.pth", network)
    words = [
        "--config",
        tiny,
        "--image",
        tmp_path / "data/images/p0.png",
        "--output",
        tmp_path / "o",
    ]
    keys = ["arch", "psa", "psa_type", psa_type, "test_w", 33, "TEST.model_path", path]
    for pixel in ("0,0", "63,47", "30,20"):
        code, _, err = run_tool("demo", *words, "--attention", pixel, *keys)
        assert code == 0, err
    found = sorted(p.stem for p in (tmp_path / "o").iterdir())
    assert [n for n in found if n[3:] in ("collect", "distribute")] == [f"p0_{n}" for n in names]
    assert read_image(tmp_path / f"o/p0_{names[0]}.png").shape == (48, 64, 3)
    assert read_label(tmp_path / "o/p0_gray.png").shape == (48, 64)
    code, _, err = run_tool("demo", *words, "--attention", "64,0", *keys)
    assert_one_sentence(code, err, "64,0 is outside the image: x must be 0..63, y 0..47")
    code, _, err = run_tool("demo", *words, "--attention", "a,b", *keys)
    assert_one_sentence(code, err, "must be x,y in pixels")
    code, _, err = run_tool("demo", *words, "--attention", "1,1")
    assert_one_sentence(code, err, "needs a PSANet")


def test_attention_maps_sum_to_the_branches_weights() -> None:
    torch.manual_seed(0)
    network = PSANet(layers=18, classes=3, mask_h=5, mask_w=5).eval()
    maps = network.attention_of(torch.randn(1, 3, 33, 33), 0, 32)
    assert [m.shape for m in maps.values()] == [(3, 3), (3, 3)]
    # collect is a softmax; distribute takes one entry of each position's softmax.
    np.testing.assert_allclose(maps["collect"].sum().item(), 1, atol=1e-5)
    assert 0 < maps["distribute"].max() <= 1
