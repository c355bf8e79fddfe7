"""tool/benchmark.py: its numbers are equalities and times; only the former are judged here."""

import json
from pathlib import Path

import pytest
import torch

from model import build_model
from tests.conftest import RunTool, assert_one_sentence
from util.config import load_config


@pytest.mark.parametrize("amp", ["bf16", "off"])
def test_the_engine_equals_the_plain_loop_at_one_scale_and_six(
    tiny: Path, tmp_path: Path, run_tool: RunTool, monkeypatch: pytest.MonkeyPatch, amp: str
) -> None:
    monkeypatch.setattr("util.extra.benchmark.inference.usable_amp", lambda kind, device: amp)
    output = tmp_path / "new/numbers.json"
    words = ["--runs", 1, "--output", output, "--config", tiny, "base_size", 40]
    code, out, err = run_tool("benchmark", "test", "--images", 2, *words)
    assert code == 0, err
    assert "random (there is no checkpoint)" in out and "PSPNet18, 3 classes" in out
    content = json.loads(output.read_text())
    assert content["images"].startswith("2 of ") and "CPU" in content["machine"]
    methods = ["plain loop", "engine float32", *(["engine bf16"] if amp == "bf16" else [])]
    rows = content["rows"]
    assert [r["method"] for r in rows] == methods * 2
    assert [len(r["scales"]) for r in rows] == [1] * len(methods) + [6] * len(methods)
    for row in rows:
        assert row["method"] in out
        assert row["seconds"] > row["network_seconds"] > 0 and row["besides"] > 0
        assert row["speed_up"] > 0
        exact = row["method"] != "engine bf16"
        assert row["equal_labels"] >= (0.9999 if exact else 0.9)
        assert row["max_difference"] < (1e-5 if exact else 0.1)


def test_a_checkpoint_is_taken_and_images_are_drawn_without_a_list(
    tiny: Path, tmp_path: Path, run_tool: RunTool
) -> None:
    path = tmp_path / "w.pth"
    torch.save({"state_dict": build_model(load_config(tiny)).state_dict()}, path)
    words = ["--config", tiny, "model_path", path, "val_list", "", "base_size", 33]
    code, out, err = run_tool("benchmark", "test", "--runs", 1, *words, "test_mode", "whole")
    assert code == 0, err
    assert str(path) in out and "1 drawn, 384x512 (there is no list)" in out and "whole" in out


def test_mistakes(tiny: Path, run_tool: RunTool) -> None:
    code, _, err = run_tool("benchmark", "test", "--runs", 0, "--config", tiny)
    assert_one_sentence(code, err, "--runs must be at least 1, got 0")
    code, _, err = run_tool("benchmark", "test", "--config", tiny, "model_path", "/no/w.pth")
    assert_one_sentence(code, err, "no weight file /no/w.pth")
