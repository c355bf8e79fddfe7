"""Counts per image that a test stores for comparisons, and damaged results."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import RunTool, assert_one_sentence
from tests.helpers.counts import NAMES, counted, save
from util.data.image import read_label, write_label


def change(folder: Path, **entries: object) -> None:
    """Change entries of scores.json; None removes one."""
    path = folder / "scores.json"
    content = {**json.loads(path.read_text()), **entries}
    path.write_text(json.dumps({k: v for k, v in content.items() if v is not None}))


def change_areas(folder: Path, **arrays: object) -> None:
    with np.load(folder / "confusion.npz") as counts:
        np.savez(folder / "confusion.npz", **{**counts, **arrays})


DAMAGE = {
    "no zip": lambda folder: (folder / "confusion.npz").write_bytes(b"PK"),
    "empty": lambda folder: (folder / "confusion.npz").write_bytes(b""),
    "no json": lambda folder: (folder / "scores.json").write_text("{"),
    "latin-1": lambda folder: (folder / "scores.json").write_bytes(b'{"names": "\xe9"}'),
    "list": lambda folder: (folder / "scores.json").write_text("[1, 2]"),
    "null": lambda folder: (folder / "scores.json").write_text("null"),
    "deep": lambda folder: (folder / "scores.json").write_text("[" * 10**5),
    "names are a number": lambda folder: change(folder, names=4),
    "names are numbers": lambda folder: change(folder, names=[1, 2, 3, 4]),
    "names are text": lambda folder: change(folder, names="abcd"),
    "a name too few": lambda folder: change(folder, names=NAMES[:3]),
    "no protocol": lambda folder: change(folder, protocol=None),
    "protocol is text": lambda folder: change(folder, protocol="x"),
    "protocol is a list": lambda folder: change(folder, protocol=[]),
    "no list": lambda folder: change(folder, protocol={}),
    "miou is text": lambda folder: change(folder, miou="high"),
    "miou is a list": lambda folder: change(folder, miou=[1]),
    "iou of too few": lambda folder: change(folder, iou_class=[0.5]),
    "iou is text": lambda folder: change(folder, iou_class=["a", "b", "c", "d"]),
    "iou is nested": lambda folder: change(folder, iou_class=[[1], [1, 2], 3, 4]),
    "areas of too few images": lambda folder: change_areas(folder, union=np.zeros((3, 4), int)),
    "areas are fractions": lambda folder: change_areas(folder, union=np.zeros((30, 4))),
    "areas are flat": lambda folder: change_areas(folder, target=np.zeros(4, int)),
    "images are objects": lambda folder: change_areas(folder, images=np.array([{}] * 30)),
    "images are numbers": lambda folder: change_areas(folder, images=np.arange(30)),
    "one image": lambda folder: change_areas(folder, images=np.array("p0")),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_results_are_reported(
    tmp_path: Path, rng: np.random.Generator, run_tool: RunTool, damage: str
) -> None:
    a = save(tmp_path / "a", counted(rng, wrong=0.3))
    DAMAGE[damage](a)
    for folders in ((a, a), (a, save(tmp_path / "b", counted(rng, wrong=0.3)))):
        code, _, err = run_tool("compare", *folders)
        assert_one_sentence(code, err, f"{a} holds a damaged scores.json or confusion.npz")


def predictions(tmp_path: Path) -> Path:
    """Create a result folder whose predictions are slightly wrong labels of `tiny`."""
    for i in range(4):
        pred = read_label(tmp_path / f"data/labels/p{i}.png")
        pred[pred == 255] = 0
        pred[20:30, :30] = 1
        write_label(tmp_path / f"result/gray/p{i}.png", pred)
    return tmp_path / "result"


def test_test_writes_all_counts(tiny: Path, tmp_path: Path, run_tool: RunTool) -> None:
    folder = predictions(tmp_path)
    (tmp_path / "names.txt").write_text("wall <a>\nfloor\nbox & lid\n")
    words = ["--config", tiny, "has_prediction", "True", "save_folder", folder]
    words += ["TEST.names_path", tmp_path / "names.txt"]
    code, _, err = run_tool("test", *words)
    assert code == 0, err
    first = (folder / "scores.json").read_text()
    scores = json.loads(first)
    low, high = scores["miou_interval"]
    assert low <= scores["miou"] <= high and len(scores["iou_class_interval"]) == 3
    assert len(scores["precision_class"]) == 3 and 0 < scores["fwiou"] < scores["aacc"] < 1
    protocol = scores["protocol"]
    digest = hashlib.sha256((tmp_path / "data/val.txt").read_bytes()).hexdigest()
    assert protocol["list_sha256"] == digest and protocol["images"] == 4
    assert protocol["checkpoint_sha256"] is None and "scales" not in protocol  # made elsewhere
    assert protocol["versions"].keys() == {"python", "torch", "numpy", "opencv"}
    with np.load(folder / "confusion.npz") as counts:
        assert counts["images"].tolist() == ["p0", "p1", "p2", "p3"]
        assert counts["target"].sum(axis=0).tolist() == counts["matrix"].sum(axis=1).tolist()
        np.testing.assert_allclose(
            counts["intersection"].sum(axis=0) / counts["union"].sum(axis=0), scores["iou_class"]
        )
        found = counts["matrix"][2].sum() - counts["matrix"][2, 2]
        assert found == 4 * 10 * 20  # rows 20:30 and columns 10:30 of the box
    page = (folder / "report.html").read_text()
    assert "wall &lt;a&gt;" in page and "box &amp; lid" in page and "predicted earlier" in page

    assert run_tool("test", *words)[0] == 0
    again = json.loads((folder / "scores.json").read_text())
    for changing in ("seconds", "images_per_second"):
        again["protocol"][changing] = protocol[changing]
    assert again == scores
    code, out, err = run_tool("compare", folder, folder)
    assert code == 0 and ": 0 of 3 classes" in out, err


def test_labels_that_are_all_void(tiny: Path, tmp_path: Path, run_tool: RunTool) -> None:
    folder = predictions(tmp_path)
    for i in range(4):
        write_label(tmp_path / f"data/labels/p{i}.png", np.full((48, 64), 255, np.uint8))
    code, _, err = run_tool(
        "test", "--config", tiny, "has_prediction", "True", "save_folder", folder
    )
    assert code == 0, err
    assert json.loads((folder / "scores.json").read_text())["miou_interval"] is None
    assert "nan" not in (folder / "report.html").read_text()
