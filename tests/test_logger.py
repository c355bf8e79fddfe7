"""Logging of a run; a full disk ends it with a message instead of hanging."""

import json
import logging
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from util.config import load_config
from util.error import RunError
from util.logger import RunLogger, start_logging, write_origin
from util.training.errors import explained
from util.training.run_logger import TrainLogger

log = logging.getLogger("semseg")
COLORS = np.zeros((3, 3), np.uint8)


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Limit the size of files, to simulate a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def scalars(logger: TrainLogger) -> None:
    logger.scalars(1, loss__total=0.5)


def image(logger: TrainLogger) -> None:
    label = torch.zeros(1, 33, 33, dtype=torch.long)
    logger.images(1, "train", torch.rand(1, 3, 33, 33), label, label)


def line(logger: TrainLogger) -> None:
    log.info("x" * 100)


def record(logger: TrainLogger) -> None:
    logger.epoch({"epoch": 1, "train_loss": 0.5})


@pytest.mark.parametrize("write", [scalars, image, line, record])
def test_a_full_disk_ends_a_training_with_a_sentence(
    tiny: Path, tmp_path: Path, write: object, capsys: pytest.CaptureFixture
) -> None:
    cfg = load_config(tiny, ["save_path", str(tmp_path / "run")])
    start_logging()
    with (
        pytest.raises(
            RunError, match=rf"^{tmp_path}/run.* cannot be written: File too large; the "
        ),
        explained(cfg),
        TrainLogger(cfg.save_path, colors=COLORS) as logger,
        files_of_at_most(5000),
    ):
        for _ in range(1000):  # more than a queue would hold
            write(logger)


def test_a_resumed_run_repeats_no_epoch_in_its_metrics(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    lines = [json.dumps({"epoch": epoch}) for epoch in (1, 2, 3, 4)]
    path.write_text("\n".join([*lines, '{"epoch": 5, "tra']))  # killed while writing
    with TrainLogger(tmp_path, colors=COLORS, epochs=2) as logger:
        logger.epoch({"epoch": 3, "again": True})
    found = [json.loads(line) for line in path.read_text().splitlines()]
    assert found == [{"epoch": 1}, {"epoch": 2}, {"epoch": 3, "again": True}]


def test_only_the_main_process_writes_and_logs(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    start_logging(is_main=False)
    with TrainLogger(tmp_path / "run", colors=COLORS, active=False) as logger:
        for write in (scalars, image, line, record):
            write(logger)
    assert not (tmp_path / "run").exists()
    start_logging()
    start_logging()
    log.info("once")
    assert [text.endswith("INFO] once") for text in capsys.readouterr().out.splitlines()] == [True]


def test_the_log_of_a_run_ends_with_it(tmp_path: Path) -> None:
    start_logging()
    with RunLogger(tmp_path, name="test"):
        log.info("within: \u0645\u062f\u064a\u0646\u0629")
    log.info("after")
    (path,) = tmp_path.glob("test-*.log")
    assert path.read_text(encoding="utf-8").count("INFO]") == 1


def test_a_diff_in_any_encoding_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_git(tmp_path, monkeypatch, r"printf 'caf\351'")
    assert write_origin(tmp_path, root=tmp_path, device="CPU")["has_git_diff"]
    assert (tmp_path / "git.diff").read_bytes() == b"caf\xe9"


def test_hanging_git_times_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("util.logger.GIT_SECONDS", 0.1)
    fake_git(tmp_path, monkeypatch, "exec sleep 60")
    with caplog.at_level(logging.INFO):
        assert write_origin(tmp_path, root=tmp_path, device="CPU")["git_commit"] is None
    assert "timed out after 0.1 seconds" in caplog.messages[0]


def fake_git(folder: Path, monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    """Create a fake git with this script."""
    path = folder / "bin/git"
    path.parent.mkdir()
    path.write_text(f"#!/bin/sh\n{answer}\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", str(path.parent), prepend=":")
