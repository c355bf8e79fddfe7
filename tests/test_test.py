"""tool/test.py: several processes, result folders, submission files."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conftest import RunTool, assert_one_sentence, command
from tests.helpers.tested import IMAGES, assert_same_results, scores, with_cities, words
from util.data.image import read_label
from util.data.label_map import load_export
from util.training.weight_file import save_atomically


@pytest.fixture
def ready(tiny: Path) -> Path:
    return with_cities(tiny)


@pytest.mark.slow
def test_the_number_of_processes_changes_nothing(ready: Path, tmp_path: Path) -> None:
    tool = (sys.executable, "tool/test.py")
    for number in (1, 2, 3):
        more = ["Distributed.num_processes", number]
        done = command(*tool, *words(ready, tmp_path / f"n{number}", *more), OMP_NUM_THREADS="1")
        assert done.returncode == 0, done.stderr
        assert f"processes: {number}" in done.stdout
        assert done.stdout.count("Eval result") == 1
        assert f"/{IMAGES}] Data " in done.stdout
    assert_same_results(tmp_path / "n1", tmp_path / "n2")
    assert_same_results(tmp_path / "n1", tmp_path / "n3")
    assert len(np.unique(scores(tmp_path / "n1")["iou_class"])) > 1
    pages = {(tmp_path / f"n{n}/report.html").read_text().count("<figure") for n in (1, 2, 3)}
    assert len(pages) == 1
    # Several processes can also score existing predictions.
    more = ["Distributed.num_processes", 2, "TEST.has_prediction", "True"]
    done = command(*tool, *words(ready, tmp_path / "n1", *more), OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    again, before = scores(tmp_path / "n1"), scores(tmp_path / "n2")
    assert again["protocol"].pop("has_prediction") and not before["protocol"].pop("has_prediction")
    assert again == before  # from protocol.json


@pytest.mark.slow
def test_a_bad_image_ends_all_processes_with_a_sentence(ready: Path, tmp_path: Path) -> None:
    bad = tmp_path / "data/images/bonn/ulm_000000_000005_leftImg8bit.png"
    bad.write_bytes(bad.read_bytes()[:200])
    done = command(
        sys.executable,
        "tool/test.py",
        *words(ready, tmp_path / "out", "Distributed.num_processes", 2),
        OMP_NUM_THREADS="1",
    )
    assert_one_sentence(done.returncode, done.stderr, f"{bad} cannot be decoded")
    assert not (tmp_path / "out/scores.json").exists()


def files(folder: Path) -> dict[str, bytes]:
    """List files except the log, which records the failure."""
    found = sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".log")
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def test_a_part_that_replaces_the_scores_of_all_images_says_so(
    ready: Path, tmp_path: Path, run_tool: RunTool
) -> None:
    whole, part = (words(ready, tmp_path / "out", "TEST.index_step", n) for n in (3, 1))
    code, out, err = run_tool("test", *whole)
    assert code == 0 and "are replaced" not in out + err
    code, out, err = run_tool("test", *part)
    assert code == 0 and "the scores of 3 images in " in out, err
    assert "are replaced by those of 1 of them" in out and "TEST.has_prediction True" in out
    code, out, err = run_tool("test", *whole, "TEST.has_prediction", "True")
    assert code == 0 and "are replaced" not in out + err
    assert json.loads((tmp_path / "out/scores.json").read_text())["protocol"]["images"] == 3


@pytest.mark.parametrize("skip_existing", [False, True])
def test_a_folder_keeps_the_predictions_of_one_protocol(
    ready: Path, tmp_path: Path, run_tool: RunTool, skip_existing: bool
) -> None:
    """Existing predictions are neither replaced nor mixed, and are scored with their protocol."""
    folder = tmp_path / "out"
    assert run_tool("test", *words(ready, folder, "TEST.index_step", 2))[0] == 0
    before = files(folder)
    again = words(ready, folder, "TEST.skip_existing", skip_existing, "TEST.index_step", 2)
    code, _, err = run_tool("test", *again, "TEST.scales", "[0.25]")
    assert_one_sentence(code, err, "another scales (there [1.0], now [0.25])", "save_folder")
    model = tmp_path / "run/model/train_epoch_1.pth"
    content = torch.load(model, weights_only=True)
    content["state_dict"]["cls.4.bias"] += 1
    save_atomically(model, content)
    code, _, err = run_tool("test", *again)
    assert_one_sentence(code, err, "another checkpoint_sha256", "or remove that folder")
    assert files(folder) == before
    scored = [*again, "TEST.has_prediction", "True", "TEST.scales", "[0.25]"]
    code, _, err = run_tool("test", *scored)
    assert code == 0, err
    assert json.loads((folder / "scores.json").read_text())["protocol"]["scales"] == [1.0]
    for name in ("config.yaml", "environment.json", "protocol.json"):
        assert (folder / name).read_bytes() == before[name]  # unchanged


def test_a_dataset_is_not_taken_for_a_result_folder(
    ready: Path, tmp_path: Path, run_tool: RunTool
) -> None:
    """A dataset with images in color/ and labels in gray/, like a result folder."""
    data = tmp_path / "data"
    (data / "images").rename(data / "color")
    (data / "labels").rename(data / "gray")
    lines = [f"color/p{i}.png gray/p{i}.png" for i in range(4)]
    (data / "val.txt").write_text("\n".join(lines))
    before = files(data)
    code, _, err = run_tool("test", *words(ready, data))
    assert_one_sentence(code, err, "TEST.save_folder", "gray/p0.png", "choose another folder")
    assert files(data) == before


def test_export_for_a_server(ready: Path, tmp_path: Path, run_tool: RunTool) -> None:
    folder = tmp_path / "out"
    more = ["TEST.export", "{0: 7, 1: 8, 2: 11}", "TEST.index_step", 3]
    code, out, err = run_tool("test", *words(ready, folder, *more))
    assert code == 0, err
    assert f"to be packed for the server: {folder}/submission" in out
    files = sorted(p.name for p in (folder / "submission").iterdir())
    assert files == [f"ulm_000000_{i:06}_leftImg8bit.png" for i in range(3)]
    saved = load_export({0: 7, 1: 8, 2: 11}, classes=3)
    for i, name in enumerate(files):
        gray = read_label(folder / "gray" / ("ulm", "bonn")[i % 2] / name)
        np.testing.assert_array_equal(read_label(folder / "submission" / name), saved[gray])
    # Also from existing predictions, and without labels.
    shutil.rmtree(folder / "submission")
    more += ["TEST.has_prediction", "True", "TEST.split", "test"]
    assert run_tool("test", *words(ready, folder, *more))[0] == 0
    assert len(list((folder / "submission").iterdir())) == 3
    code, _, err = run_tool("test", *words(ready, folder, "TEST.export", "cityscapes"))
    assert_one_sentence(code, err, "maps 19 classes, 0..18, but DATA.classes is 3")
