"""benchmark gpu: a dry run of all parts on the CPU, and parts that fail."""

import json
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from tests.conftest import ROOT, RunTool, assert_one_sentence, command
from util.extra.benchmark import gpu_augment, gpu_camvid
from util.extra.benchmark.parts import Part, guarded, run_parts
from util.extra.benchmark.record import Deadline, Record

BUDGET = 600  # seconds, for a busy machine; an idle one needs about one minute


@pytest.mark.slow
def test_a_dry_run_of_all_parts(tmp_path: Path) -> None:
    camvid, folder = tmp_path / "camvid", tmp_path / "found"
    draw = ["tool/prepare_toy.py", "--out", camvid, "--train", 8, "--val", 2]
    assert command(sys.executable, *draw).returncode == 0
    words = ["gpu", "--tiny", "--budget", BUDGET, "--output", folder, "--camvid", camvid]
    run = subprocess.run(
        [sys.executable, "tool/benchmark.py", *map(str, words)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=BUDGET + 60,
    )
    assert run.returncode == 0, run.stderr
    assert {path.name for path in folder.iterdir()} == {
        *("gpu.jsonl", "gpu.json", "gpu.md", "gpu_files.tar.gz")
    }
    rows = json.loads((folder / "gpu.json").read_text())["rows"]
    assert rows == [json.loads(line) for line in (folder / "gpu.jsonl").read_text().splitlines()]
    failed = [row for row in rows if "Error" in row.get("note", "") or row["name"] == "failed"]
    assert not failed, run.stderr
    parts = {part: [r for r in rows if r["part"] == part] for part in {r["part"] for r in rows}}
    assert set(parts) == {
        *("env", "step", "test", "resume", "augment", "camvid"),
        "time",
        "operators",
    }
    assert sum("golden" in row["name"] and row["bf16"] < 0.1 for row in parts["env"]) == 1
    assert [row["end"] for row in parts["env"] if "end" in row] == ["exit code 0"] * 2
    assert len(parts["step"]) == 5 and all(r["images_per_second"] > 0 for r in parts["step"])
    assert [r["equal_labels"] for r in parts["test"] if "equal_labels" in r][1:] == [1, 1]
    resumed = parts["resume"][0]
    assert resumed["bit_equal"] and resumed["killed_at"].startswith("train_epoch_0_step_")
    assert [row["name"] for row in parts["augment"] if "deviation" in row] == [
        *("stepwise, mean", "fused, mean")
    ]
    trained = next(row for row in parts["camvid"] if "epochs" in row["name"])
    assert trained["train_loss"] > 0 and sum("miou" in row for row in parts["camvid"]) == 3
    assert (
        "| PSPNet50 473, batch 16, plain script, float32, TF32 off |"
        in (folder / "gpu.md").read_text()
    )


def test_mistakes(run_tool: RunTool) -> None:
    code, _, err = run_tool("benchmark", "gpu", "--parts", "env,stpe")
    assert_one_sentence(
        code, err, "--parts knows env, step, test, resume, augment, camvid, got 'stpe'"
    )
    code, _, err = run_tool("benchmark", "gpu", "--budget", 0)
    assert_one_sentence(code, err, "--budget must be above 0 seconds, got 0")


@pytest.mark.parametrize("part", ["augment", "camvid"])
def test_a_part_without_data_or_weights_is_skipped(
    tmp_path: Path, capfd: pytest.CaptureFixture, part: str
) -> None:
    record = Record(tmp_path / "found")
    record.start()
    data, weights = tmp_path / "camvid/list/train.txt", tmp_path / "none.pth"
    setup = gpu_camvid.Setup(
        recipe=ROOT / "config/camvid/camvid_pspnet18.yaml",
        data_root=tmp_path / "camvid",
        weights=str(weights),
        work=tmp_path,
        log=tmp_path / "log",
        kept=tmp_path,
        test_seconds=1,
        max_epochs=1,
    )
    start = partial(gpu_augment.run, seeds=(1,), epochs=1) if part == "augment" else gpu_camvid.run
    for path in (data, weights):
        start(record, Deadline.after(1), setup=setup)
        assert capfd.readouterr().out == f"{part}: skipped: note no {path}\n"
        data.parent.mkdir(parents=True, exist_ok=True)
        data.touch()
    weights.touch()
    assert not any(
        replace(setup, weights=text).missing() for text in (str(weights), "", "pretrained")
    )


def test_help_tells_defaults(run_tool: RunTool) -> None:
    code, out, _ = run_tool("benchmark", "gpu", "--help")
    shown = " ".join(out.split())
    assert code == 0 and "A part whose data or weights are missing is skipped" in shown
    defaults = ("exp/benchmark_gpu", "dataset/camvid", "initmodel/resnet50_v1.pth")
    for name in (*defaults, "initmodel/resnet18_v1.pth"):
        assert f"default {name}" in shown


def work(record: Record, deadline: Deadline, *, kind: str) -> None:
    record.add(kind, "first", seconds=deadline.left())
    if kind == "raises":
        raise ValueError("too bad")
    if kind == "hangs":
        time.sleep(100)
    if kind == "dies":
        raise SystemExit(7)


def test_failing_part_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("util.extra.benchmark.parts.GRACE", 0.2)
    record, ends = Record(tmp_path / "new/found"), []
    record.start()
    kinds = ["raises", "hangs", "dies", "works"]
    parts = [Part(kind, partial(work, kind=kind), share=1) for kind in kinds]
    run_parts(parts, record, seconds=6, after=lambda: ends.append(len(record.rows())))
    rows = record.rows()
    assert [r["part"] for r in rows if r["name"] == "first"] == kinds
    notes = {row["part"]: row["note"] for row in rows if "note" in row and row["name"] != "first"}
    assert notes["raises"] == "exit code 1" and notes["dies"] == "exit code 7"
    assert notes["hangs"].startswith("killed after")
    assert "ValueError: too bad" in [row.get("note") for row in rows]
    assert len(ends) == 4 and ends[-1] == len(rows)
    markdown = record.write({"machine": "this one"})
    assert markdown.startswith("- machine: this one\n\n| raises | seconds | note |\n| --- |")


def test_truncated_rows_are_skipped(tmp_path: Path) -> None:
    record = Record(tmp_path / "found")
    record.start()
    record.add("step", "a | b", seconds=0.12345678, shares=["x 1%", "y 2%"])
    assert not guarded(record, "step", "bad", lambda: 1 / 0)
    with (tmp_path / "found.jsonl").open("a") as file:
        file.write('{"part": "st')
    assert len(record.rows()) == 2
    assert "| a \\| b | 0.1235 | x 1%, y 2% |" in record.write({})
