"""tool/verify.py: agreement with the stored numbers of an independent implementation."""

import numpy as np
import pytest
import torch

from tests.conftest import RunTool, assert_one_sentence
from tool.verify import check_case
from util.extra.golden import load_cases


@pytest.mark.parametrize("name", load_cases())
def test_case(name: str) -> None:
    checks = list(check_case(name, torch.device("cpu")))
    assert {c.what for c in checks} & {"logits", "probabilities", "scores"}
    misses = [c for c in checks if not c.is_hit]
    assert not misses, misses


def test_deviation_gives_exit_code_1(run_tool: RunTool, monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"metric/" + k: np.full(150, 7) for k in ("intersection", "union", "target")}
    values["metric/scores"] = np.full(3, np.nan)
    monkeypatch.setattr("tool.verify.load_values", lambda: values)
    code, out, _ = run_tool("verify", "metric")
    assert code == 1 and out.count("MISS") == 4


def test_invalid_arguments(run_tool: RunTool) -> None:
    code, _, err = run_tool("verify", "pspnet51")
    assert_one_sentence(code, err, "no case 'pspnet51'; nearest: pspnet50")
    code, _, err = run_tool("verify", "--device", "cuda:99")
    assert_one_sentence(code, err, "--device cuda:99 does not work here")
