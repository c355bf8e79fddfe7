"""tool/benchmark.py: agreement is asserted, times are not."""

import json
from pathlib import Path

import pytest
import torch

from model import build_model
from tests.conftest import RunTool, assert_one_sentence
from util.config import load_config
from util.extra.benchmark import data, inference, memory, metric, training
from util.extra.benchmark.record import Record


@pytest.fixture
def record(tmp_path: Path) -> Record:
    record = Record(tmp_path / "new/found")
    record.start()
    return record


@pytest.mark.parametrize("amp", ["bf16", "off"])
def test_the_engine_equals_the_plain_loop_at_one_scale_and_six(
    tiny: Path, tmp_path: Path, run_tool: RunTool, monkeypatch: pytest.MonkeyPatch, amp: str
) -> None:
    monkeypatch.setattr("util.extra.benchmark.inference.usable_amp", lambda kind, device: amp)
    monkeypatch.setattr("util.extra.benchmark.inference.installed", lambda name: None)
    output = tmp_path / "new/numbers.json"
    words = ["--runs", 1, "--output", output, "--config", tiny, "base_size", 40]
    code, out, err = run_tool("benchmark", "test", "--images", 2, *words)
    assert code == 0, err
    assert "random (no checkpoint)" in out and "PSPNet18, 3 classes" in out
    assert "images: 2 of " in out
    content = json.loads(output.read_text())
    assert "CPU" in content["machine"] and "test --images 2" in content["command"]
    methods = ["plain loop", "engine float32", *(["engine bf16"] if amp == "bf16" else [])]
    rows = content["rows"]
    assert [r["name"].split(", ")[-1] for r in rows] == methods * 2
    assert "1 scales" in rows[0]["name"] and "6 scales" in rows[-1]["name"]
    markdown = output.with_suffix(".md").read_text()
    for row in rows:
        assert row["name"] in out and f"| {row['name']} |" in markdown
        assert row["seconds"] > row["network_seconds"] > 0 and row["besides"] > 0
        assert row["ratio"] > 0
        exact = "bf16" not in row["name"]
        assert row["equal_labels"] >= (0.9999 if exact else 0.9)
        assert row["max_difference"] < (1e-5 if exact else 0.1)


def test_monai_predicts_the_same(tiny: Path, record: Record) -> None:
    pytest.importorskip("monai")
    cfg = load_config(tiny, ["base_size", "40"])
    inference.run(record, cfg=cfg, count=1, runs=1, device=torch.device("cpu"))
    rows = [row for row in record.rows() if row["name"].endswith("MONAI")]
    assert len(rows) == 2 and all(row["equal_labels"] > 0.99 for row in rows)


def test_a_checkpoint_is_taken_and_images_are_drawn_without_a_list(
    tiny: Path, tmp_path: Path, run_tool: RunTool
) -> None:
    path = tmp_path / "w.pth"
    torch.save({"state_dict": build_model(load_config(tiny)).state_dict()}, path)
    words = ["--config", tiny, "model_path", path, "val_list", "", "base_size", 33]
    code, out, err = run_tool("benchmark", "test", "--runs", 1, *words, "test_mode", "whole")
    assert code == 0, err
    assert str(path) in out and "1 generated, 384x512 (no list)" in out and "whole" in out


@pytest.mark.slow
def test_plain_step_has_the_same_loss(tiny: Path, record: Record) -> None:
    cfg = load_config(tiny)
    training.run(record, cfg=cfg, runs=1, device=torch.device("cpu"))
    rows = {row["name"].split(": ")[1]: row for row in record.rows()}
    plain = rows["plain script"]["first_loss"]
    assert rows["float32, classifier stepwise"]["first_loss"] == pytest.approx(plain, rel=1e-5)
    for row in rows.values():
        assert row["seconds"] > 0 and row["ratio"] > 0
        assert "smaller" in row["name"] or row["first_loss"] == pytest.approx(plain, rel=0.05)


def test_all_ways_of_counting_agree(record: Record) -> None:
    metric.run(record, runs=1, cases=(("small", (64, 96), 5),))
    names = [row["name"] for row in record.rows()]
    assert names[:2] == ["small, histograms", "small, ConfusionMatrix"]
    assert all(row["equal"] for row in record.rows())


def test_data_has_equal_decoders_and_both_augmentations(record: Record) -> None:
    data.run(record, runs=1, cases=(data.Case("small", (64, 96), 33),))
    rows = {row["name"]: row for row in record.rows()}
    decoded = [row for name, row in rows.items() if name.startswith("decode")]
    assert len(decoded) >= 6 and all(row["equal"] for row in decoded)
    fused = rows["augment, small, fused"]
    assert fused["mean_difference"] < 3 and fused["equal_labels"] > 0.95
    assert rows["files to batches, small, fused"]["images_per_second_and_core"] > 0


@pytest.mark.slow
def test_peak_memory_is_measured_apart(tiny: Path, record: Record) -> None:
    cfg = load_config(tiny, ["train_h", "97", "train_w", "97"])
    memory.run(record, cfg=cfg, device=torch.device("cpu"), size=(60, 80))
    rows = record.rows()
    assert len(rows) == 7 and all(row["peak_gib"] > 0 and row["ratio"] > 0 for row in rows)


def test_a_part_that_fails_is_noted(
    tiny: Path, tmp_path: Path, run_tool: RunTool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_memory(*args: object, **keys: object) -> None:
        raise MemoryError

    for part in ("data", "metric", "training", "inference", "memory"):
        work = no_memory if part == "training" else lambda *args, **keys: None
        monkeypatch.setattr(f"util.extra.benchmark.{part}.run", work)
    words = ["--output", tmp_path / "found.json", "--config", tiny]
    code, out, err = run_tool("benchmark", "all", *words)
    assert code == 0, err
    assert "| step | failed or took too long |" in out
    rows = json.loads((tmp_path / "found.json").read_text())["rows"]
    assert [row["part"] for row in rows] == ["step"]


def test_mistakes(tiny: Path, run_tool: RunTool) -> None:
    code, _, err = run_tool("benchmark", "test", "--runs", 0, "--config", tiny)
    assert_one_sentence(code, err, "--runs must be at least 1, got 0")
    code, _, err = run_tool("benchmark", "test", "--config", tiny, "model_path", "/no/w.pth")
    assert_one_sentence(code, err, "no weight file /no/w.pth")
