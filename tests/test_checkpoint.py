"""Checkpoints in a folder: names, which ones are kept, which one a run resumes from."""

from pathlib import Path

import pytest
import torch

from util.error import CheckpointError, ConfigError
from util.training.checkpoint import checkpoints, find_checkpoint, find_resume, save_checkpoint
from util.training.weight_file import load_file


def save(folder: Path, epoch: int, step: int = 0, **options: object) -> list[str]:
    """Save a small checkpoint; return the names of the files written."""
    folder.mkdir(exist_ok=True)
    content = {"epoch": epoch, "step_in_epoch": step, "state_dict": {"w": torch.rand(9999)}}
    return [path.name for path in save_checkpoint(folder, content, **options)]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_newest_are_kept_and_found(tmp_path: Path) -> None:
    for epoch in (1, 2, 9, 10):
        is_best = epoch == 2
        written = save(tmp_path, epoch, is_best=is_best)
        assert written == ["best.pth"] * is_best + [f"train_epoch_{epoch}.pth"]
    assert [p.name for p in checkpoints(tmp_path)] == ["train_epoch_10.pth", "train_epoch_9.pth"]
    assert load_file(tmp_path / "best.pth")["epoch"] == 2
    assert find_checkpoint("", str(tmp_path)).endswith("train_epoch_10.pth")
    assert find_checkpoint("x.pth", str(tmp_path)) == "x.pth"
    with pytest.raises(CheckpointError, match=r"train first .sh tool/train\.sh"):
        find_checkpoint("", str(tmp_path / "none"))


def test_steps_come_between_epochs(tmp_path: Path) -> None:
    for epoch, step in ((1, 0), (1, 90), (1, 100), (2, 0)):
        save(tmp_path, epoch, step)
    found = [p.name for p in checkpoints(tmp_path)]
    assert found == ["train_epoch_2.pth", "train_epoch_1_step_100.pth"]


def test_files_of_similar_names_are_not_checkpoints(tmp_path: Path) -> None:
    save(tmp_path, 1)
    for name in ("train_epoch_1_copy.pth", "train_epoch_.pth", "train_epoch_2_old.pth"):
        (tmp_path / name).write_bytes(b"mine")
    assert [p.name for p in checkpoints(tmp_path)] == ["train_epoch_1.pth"]
    save(tmp_path, 2)
    assert (tmp_path / "train_epoch_1_copy.pth").read_bytes() == b"mine"


def test_a_best_checkpoint_alone_is_continued_and_not_overwritten(tmp_path: Path) -> None:
    """Others may not have been due yet when the run was killed."""
    save(tmp_path, 3, is_due=False, is_best=True)
    assert names(tmp_path) == ["best.pth"]
    found = find_resume("auto", str(tmp_path))
    assert found is not None and (Path(found.path).name, found.content["epoch"]) == ("best.pth", 3)
    with pytest.raises(ConfigError, match=r"already holds .*best\.pth: continue from it"):
        find_resume("", str(tmp_path))


def test_a_requeued_job_continues_from_its_own_checkpoint_if_any(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the first one it starts as the job did."""
    save(tmp_path / "other", 5)
    first = str(tmp_path / "other/train_epoch_5.pth")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    own = tmp_path / "own"
    own.mkdir()
    assert find_resume("", str(own)) is None
    found = find_resume(first, str(own))
    assert found is not None and found.path == first
    save(own, 6, 40)
    for resume in ("", first, "auto"):
        found = find_resume(resume, str(own))
        assert found is not None and Path(found.path).name == "train_epoch_6_step_40.pth"
    monkeypatch.setenv("SLURM_RESTART_COUNT", "0")
    with pytest.raises(ConfigError, match="already holds"):
        find_resume("", str(own))


def test_what_was_just_written_is_never_deleted(tmp_path: Path) -> None:
    for epoch in (8, 9):
        save(tmp_path, epoch)
    save(tmp_path, 5)
    assert names(tmp_path) == [f"train_epoch_{epoch}.pth" for epoch in (5, 8, 9)]


def test_best_survives_a_kill_between_the_two_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The resumed run has the previous best score, so it writes best.pth again."""

    def killed(path: Path, content: dict) -> None:
        torch.save(content, path)
        raise KeyboardInterrupt

    monkeypatch.setattr("util.training.checkpoint.save_atomically", killed)
    with pytest.raises(KeyboardInterrupt):
        save(tmp_path, 1, is_best=True)
    assert names(tmp_path) == ["best.pth"]


def test_a_checkpoint_behind_the_folder_is_refused(tmp_path: Path) -> None:
    """TRAIN.resume of an older file, or of another run's."""
    own, other = tmp_path / "own", tmp_path / "other"
    save(own, 2, is_best=True)
    for epoch in (4, 5):
        save(own, epoch)
    save(other, 3, 2)
    save(other, 5)
    before = {path: path.read_bytes() for path in own.iterdir()}
    for path in (own / "best.pth", own / "train_epoch_4.pth", *checkpoints(other)):
        with pytest.raises(ConfigError) as error:
            find_resume(str(path), str(own))
        text = str(error.value)
        assert text.startswith(f"TRAIN.resume {path} is of epoch ")
        assert f"already holds {own / 'train_epoch_5.pth'}" in text and "resume auto" in text
    assert {path: path.read_bytes() for path in own.iterdir()} == before
    for path in (own / "train_epoch_5.pth", "auto"):
        assert find_resume(str(path), str(own)).path == str(own / "train_epoch_5.pth")


def test_a_checkpoint_of_another_run_that_is_ahead(tmp_path: Path) -> None:
    """The run may continue in a folder with less advanced checkpoints, which are kept."""
    own, other = tmp_path / "own", tmp_path / "other"
    save(own, 1)
    save(other, 3)
    path = str(other / "train_epoch_3.pth")
    assert find_resume(path, str(own)).content["epoch"] == 3
    foreign = checkpoints(own)
    for epoch in (4, 5, 6):
        save(own, epoch, foreign=foreign)
    assert names(own) == [f"train_epoch_{epoch}.pth" for epoch in (1, 5, 6)]
    best = tmp_path / "best"
    save(best, 1, is_due=False, is_best=True)
    with pytest.raises(ConfigError, match=r"already holds .*best\.pth, which the run would overwr"):
        find_resume(path, str(best))


def test_resuming_falls_back_from_a_damaged_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for epoch in (1, 2):
        save(tmp_path, epoch)
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
        assert "train_epoch_2.pth" in text and "using the previous checkpoint" in text
    (tmp_path / "train_epoch_1.pth").write_bytes(b"")
    with pytest.raises(CheckpointError, match="none of the 2 checkpoints"):
        find_resume("auto", str(tmp_path))
    assert find_resume("auto", str(tmp_path / "new")) is None
