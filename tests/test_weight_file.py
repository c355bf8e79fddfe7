"""Weight files: atomic saving, safe loading, other projects' formats, strict matching."""

import gzip
import os
import pickle
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from util.error import CheckpointError
from util.training.weight_file import load_file, load_weights, save_atomically, state_dict_of


class Danger:
    """Runs a command when unpickled."""

    def __reduce__(self) -> tuple:
        return os.system, ("echo ran > ran",)


def test_a_failed_save_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    save_atomically(path, {"w": torch.ones(1)})
    with pytest.raises((AttributeError, pickle.PicklingError, TypeError)):
        save_atomically(path, {"w": lambda: 0})
    assert load_file(path)["w"] == 1
    assert list(tmp_path.iterdir()) == [path]


def test_damaged_files_are_reported(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save({"w": torch.arange(10000.0)}, path)
    whole = path.read_bytes()
    for cut in (0, 100, len(whole) // 2, len(whole) - 10):
        path.write_bytes(whole[:cut])
        with pytest.raises(CheckpointError, match="truncated or damaged"):
            load_file(path)
    path.write_text("hello")
    with pytest.raises(CheckpointError, match="truncated or damaged"):
        load_file(path)
    with pytest.raises(CheckpointError, match="no weight file"):
        load_file(tmp_path / "none.pth")


@pytest.mark.parametrize("is_zip", [True, False])
def test_a_file_with_code_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_zip: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "evil.pth"
    torch.save({"w": Danger()}, path, _use_new_zipfile_serialization=is_zip)
    with pytest.raises(CheckpointError, match="could run code"):
        load_file(path)
    assert not (tmp_path / "ran").exists()


PLAIN = {"layer0.0.weight": torch.zeros(1), "cls.4.bias": torch.ones(2)}


def named(prefix: str, state: dict[str, Tensor] = PLAIN) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in state.items()}


@pytest.mark.parametrize(
    "content",
    [
        PLAIN,
        {"epoch": 3, "state_dict": named("module."), "optimizer": {}},
        named("module.module."),
        named("_orig_mod."),
        named("module._orig_mod."),
        {"layer0._orig_mod.0.weight": torch.zeros(1), "cls.4.bias": torch.ones(2)},
        {"model": PLAIN, "ema": named("", {"cls.4.bias": torch.zeros(2)})},
        {"model": {"state_dict": PLAIN}, "epoch": torch.tensor(3)},
        {"ema": {"module": named("module.")}},
        {"model_ema": PLAIN},
        {"n_averaged": torch.tensor(7), **named("module.")},  # swa_utils.AveragedModel
        {"pytorch-lightning_version": "2.5", "state_dict": named("model."), "callbacks": {}},
    ],
)
def test_wrappers_and_prefixes_of_other_trainers(content: dict) -> None:
    found = state_dict_of(content, source="f")
    assert found.keys() == PLAIN.keys()
    assert all(torch.equal(found[name], value) for name, value in PLAIN.items())


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ({"epoch": 1}, r"holds no state dict \(keys: epoch\)"),
        ({}, "holds no state dict"),
        ({"state_dict": {1: torch.zeros(1)}}, "holds no state dict"),
        ({"state_dict": ["a"]}, "holds no state dict"),
        (
            {"module.a": torch.zeros(1), "a": torch.zeros(1)},
            "names differ only in their prefix, such as a",
        ),
        ({"a": torch.tensor([1.0, torch.nan])}, r"1 with infinite or NaN values \(a\)"),
        ({"a": torch.tensor(torch.inf)}, r"1 with infinite or NaN values \(a\)"),
        ({"a": torch.zeros(2, 2).to_sparse()}, "sparse, quantised or without values"),
        ({"a": torch.zeros(2, device="meta")}, "sparse, quantised or without values"),
    ],
)
def test_content_that_is_not_a_finite_state_dict(content: dict, part: str) -> None:
    with pytest.raises(CheckpointError, match=f"^f.* {part}|^f: .*{part}"):
        state_dict_of(content, source="f")


@pytest.mark.filterwarnings("ignore")  # torch warns that it deprecates them
def test_quantised_weights_are_refused() -> None:
    value = torch.quantize_per_tensor(torch.zeros(2), 0.1, 0, torch.qint8)
    with pytest.raises(CheckpointError, match="quantised"):
        state_dict_of({"a": value}, source="f")


def test_safetensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_file = pytest.importorskip("safetensors.torch").save_file
    path = tmp_path / "w.safetensors"
    save_file(named("module."), path)
    assert state_dict_of(load_file(path), source="f").keys() == PLAIN.keys()
    whole = path.read_bytes()
    path.write_bytes(whole[:-3])
    with pytest.raises(CheckpointError, match="truncated or damaged"):
        load_file(path)
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(CheckpointError, match="pip install safetensors"):
        load_file(path)


@pytest.mark.filterwarnings("ignore")  # TorchScript is deprecated
def test_other_file_formats_are_named(tmp_path: Path) -> None:
    archive, program = tmp_path / "archive.zip", tmp_path / "program.pt"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("weights/net.pth", "x")
    torch.jit.script(nn.Conv2d(1, 1, 1)).save(str(program))
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:1234\nsize 99\n"
    for content, part in (
        (b"\n<!DOCTYPE html>\n<html><body>Sign in</body></html>", "is a web page"),
        (b"<html><head>404</head></html>", "is a web page"),
        (pointer, "is a Git LFS pointer, not the weights: run git lfs pull"),
        (gzip.compress(b"x"), "is a gzip archive: unpack it"),
        (archive.read_bytes(), r"is a zip archive \(weights/net.pth\): unpack it"),
        (program.read_bytes(), "is a TorchScript program"),
    ):
        for name in ("w.pth", "w.safetensors"):
            path = tmp_path / name
            path.write_bytes(content)
            with pytest.raises(CheckpointError, match=f"^{path} {part}"):
                load_file(path)


def test_other_dtypes_do_not_fit() -> None:
    model = nn.Conv2d(1, 1, 1)
    for dtype in (torch.bool, torch.int8):
        state = {name: value.to(dtype) for name, value in model.state_dict().items()}
        with pytest.raises(CheckpointError, match=r"2 of another type \(weight (bool|int8), bias"):
            load_weights(model, state, source="w.pth")


def test_mismatches_are_listed_by_kind_and_change_nothing() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    state = dict(model.state_dict(), extra=torch.zeros(1))
    state["0.weight"] = torch.zeros(3, 1, 1, 1)
    del state["1.bias"], state["1.num_batches_tracked"]
    with pytest.raises(CheckpointError) as error:
        load_weights(model, state, source="w.pth")
    text = str(error.value)
    assert "1 missing in the file (1.bias)" in text
    assert "1 unknown to the network (extra)" in text
    assert "0.weight (3, 1, 1, 1) in the file, (2, 1, 1, 1) in the network" in text
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_entries_may_be_missing_only_by_name() -> None:
    model = nn.Conv2d(1, 1, 1)
    state = {"weight": torch.full((1, 1, 1, 1), 7.0)}
    with pytest.raises(CheckpointError, match="bias"):
        load_weights(model, state, source="w.pth")
    load_weights(model, state, source="w.pth", may_miss=lambda name: name == "bias")
    assert model.weight.item() == 7
