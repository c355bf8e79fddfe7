"""Weight files: atomic, safe, strict."""

import os
import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

from util.error import CheckpointError
from util.training.checkpoint import checkpoints, find_checkpoint, find_resume, save_checkpoint
from util.training.weight_file import load_file, load_weights, save_atomically, state_dict_of


class Danger:
    """Unpickling this would run a command."""

    def __reduce__(self) -> tuple:
        return os.system, ("echo ran > ran",)


def test_newest_are_kept_and_found(tmp_path: Path) -> None:
    for epoch in (1, 2, 9, 10):
        content = {"epoch": epoch, "state_dict": {"w": torch.ones(1) * epoch}}
        written = save_checkpoint(tmp_path, content, is_due=True, is_best=epoch == 2)
        assert next(p.name for p in written) == f"train_epoch_{epoch}.pth"
    assert [p.name for p in checkpoints(tmp_path)] == ["train_epoch_10.pth", "train_epoch_9.pth"]
    assert load_file(tmp_path / "best.pth")["epoch"] == 2
    assert find_checkpoint("", str(tmp_path)).endswith("train_epoch_10.pth")
    assert find_checkpoint("x.pth", str(tmp_path)) == "x.pth"
    with pytest.raises(CheckpointError, match=r"train first .sh tool/train\.sh"):
        find_checkpoint("", str(tmp_path / "none"))


def test_steps_come_between_epochs(tmp_path: Path) -> None:
    for epoch, step in ((1, 0), (1, 90), (1, 100), (2, 0), (0, 5)):
        content = {"epoch": epoch, "step_in_epoch": step, "state_dict": {"w": torch.zeros(1)}}
        save_checkpoint(tmp_path, content)
    found = [p.name for p in checkpoints(tmp_path)]
    assert found == ["train_epoch_2.pth", "train_epoch_1_step_100.pth"]


def test_resuming_falls_back_from_a_damaged_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for epoch in (1, 2):
        save_checkpoint(tmp_path, {"epoch": epoch, "state_dict": {"w": torch.rand(9999)}})
    newest = tmp_path / "train_epoch_2.pth"
    whole = newest.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1  # one bit on a bad disk
    for damaged in (whole[:-100], bytes(flipped), b""):
        newest.write_bytes(damaged)
        caplog.clear()
        name, content = find_resume("auto", str(tmp_path))
        assert name.endswith("train_epoch_1.pth") and content["epoch"] == 1
        (text,) = caplog.messages
        assert "train_epoch_2.pth" in text and "using the checkpoint before it" in text
    (tmp_path / "train_epoch_1.pth").write_bytes(b"")
    with pytest.raises(CheckpointError, match="none of the 2 checkpoints"):
        find_resume("auto", str(tmp_path))
    assert find_resume("auto", str(tmp_path / "new")) is None


def test_a_failed_save_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    save_atomically(path, {"w": torch.ones(1)})
    with pytest.raises((AttributeError, pickle.PicklingError, TypeError)):
        save_atomically(path, {"w": lambda: 0})
    assert load_file(path)["w"] == 1
    assert list(tmp_path.iterdir()) == [path]


def test_damaged_files_are_said_so(tmp_path: Path) -> None:
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


def test_prefixes_and_wrappings(tmp_path: Path) -> None:
    weights = {"module.a": torch.zeros(1), "module.b": torch.zeros(2)}
    content = {"epoch": 3, "state_dict": weights, "optimizer": {}}
    for stored in (content, weights):
        assert list(state_dict_of(stored, source="f")) == ["a", "b"]
    with pytest.raises(CheckpointError, match="holds no state dict"):
        state_dict_of({"epoch": 1}, source="f")


def test_a_misfit_is_reported_by_kind_and_changes_nothing() -> None:
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
