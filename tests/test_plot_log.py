"""tool/plot_log.py: training curves, and mistakes."""

import json
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import RunTool, assert_one_sentence
from tool import plot_log


def write_run(folder: Path, *losses: float) -> Path:
    """Write a run that validated its last epoch."""
    (folder / "model").mkdir(parents=True)
    records = [
        {"epoch": i, "train_loss": loss, "train_miou": 1 / (1 + loss), "lr": 0.01 / i}
        for i, loss in enumerate(losses, start=1)
    ]
    if records:
        records[-1] |= {"val_loss": 2.0, "val": {"miou": 0.25}}
    text = "".join(json.dumps(record) + "\n" for record in records)
    (folder / "model/metrics.jsonl").write_text(text)
    return folder


def test_the_values_of_the_curves(tmp_path: Path) -> None:
    records = plot_log.read_metrics(write_run(tmp_path / "run", 3, 1))
    curves = {
        (title, style): [plot_log.value(record, keys) for record in records]
        for title, lines in plot_log.PANELS.items()
        for style, keys in lines.items()
    }
    assert curves == {
        ("loss", "-"): [3, 1],
        ("loss", "--"): [None, 2.0],
        ("mIoU", "-"): [0.25, 0.5],
        ("mIoU", "--"): [None, 0.25],
        ("learning rate", "-"): [0.01, 0.005],
    }


def test_runs_are_labelled_by_what_differs() -> None:
    runs = [Path("exp/toy/a"), Path("exp/toy/b")]
    assert plot_log.labels(runs) == ["a", "b"]
    assert plot_log.labels([Path("exp/a/model"), Path("exp/b/model")]) == ["a/model", "b/model"]
    assert len(plot_log.labels([runs[0], runs[0]])) == 2


def test_a_plot_of_two_runs(tmp_path: Path, run_tool: RunTool) -> None:
    pytest.importorskip("matplotlib")
    runs = [write_run(tmp_path / "a", 3, 2, 1), write_run(tmp_path / "b", 4, 1)]
    output = tmp_path / "new/curves.png"
    code, out, err = run_tool("plot_log", *runs, "--output", output)
    assert (code, out) == (0, f"wrote {output}\n"), err
    with Image.open(output) as image:
        assert image.width > 1000 and len(image.convert("RGB").getcolors(1 << 20)) > 10
    before = output.read_bytes()
    code, _, err = run_tool("plot_log", runs[0], "--output", output)
    assert_one_sentence(code, err, str(output), "--overwrite")
    assert output.read_bytes() == before
    assert run_tool("plot_log", runs[0], "--output", output, "--overwrite")[0] == 0
    assert output.read_bytes() != before


def test_truncated_line(tmp_path: Path) -> None:
    path = write_run(tmp_path / "run", 3, 1) / "model/metrics.jsonl"
    whole = path.read_text()
    path.write_text(whole + '{"epoch": 3, "tra')
    assert len(plot_log.read_metrics(path)) == 2
    path.write_text("noise\n" + whole)
    with pytest.raises(plot_log.DataError, match=r"line 1 is not the record of an epoch .noise"):
        plot_log.read_metrics(path)


@pytest.mark.filterwarnings("error")
def test_a_run_without_scores(tmp_path: Path, run_tool: RunTool) -> None:
    pytest.importorskip("matplotlib")
    (tmp_path / "metrics.jsonl").write_text('{"epoch": 1, "lr": true}\n')
    assert run_tool("plot_log", tmp_path, "--output", tmp_path / "o.png")[0] == 0


def test_without_matplotlib(
    tmp_path: Path, run_tool: RunTool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    words = [write_run(tmp_path / "run", 1), "--output", tmp_path / "o.png"]
    assert_one_sentence(*run_tool("plot_log", *words)[::2], "pip install matplotlib")


def test_mistakes(tmp_path: Path, run_tool: RunTool) -> None:
    run, empty = write_run(tmp_path / "run", 1), write_run(tmp_path / "empty")
    words = ["--output", tmp_path / "o.png"]
    assert_one_sentence(*run_tool("plot_log", tmp_path, *words)[::2], "no metrics.jsonl")
    assert_one_sentence(*run_tool("plot_log", empty, *words)[::2], "is empty: plot it after")
    assert_one_sentence(
        *run_tool("plot_log", run, "--output", tmp_path / "o.gif")[::2], ".png, .svg or .pdf"
    )
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty", "run"]


def test_help_tells_the_default(run_tool: RunTool) -> None:
    code, out, _ = run_tool("plot_log", "--help")
    assert code == 0 and "PNG, SVG or PDF; default curves.png" in " ".join(out.split())
