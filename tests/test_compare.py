"""What a test keeps of its scores, the bootstrap over images, and tool/compare.py."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import RunTool, assert_one_sentence
from util.data.image import read_label, write_label
from util.evaluation.bootstrap import Areas, difference_intervals, draw_counts, intervals
from util.metric import ImageCounts

NAMES = ["sky", "road", "car", "never"]


def counted(rng: np.random.Generator, *, wrong: float, images: int = 30) -> ImageCounts:
    """Labels of three classes (always the same), a share of the second's pixels predicted wrong."""
    counts = ImageCounts(len(NAMES))
    labels = np.random.default_rng(5).integers(0, 3, (images, 12, 12))
    labels[1:][labels[1:] == 2] = 0  # the third class is in one image alone
    for i, label in enumerate(labels):
        pred = np.where((label == 1) & (rng.random(label.shape) < wrong), 0, label)
        counts.add(pred, label, image=i)
    return counts


def save(folder: Path, counts: ImageCounts, names: list[str] = NAMES, sha: str = "x") -> Path:
    """A result folder as tool/test.py leaves it, as far as a comparison reads it."""
    folder.mkdir()
    scores, areas = counts.total.scores(), Areas.stack(counts.areas)
    content = {"miou": scores.miou, "iou_class": scores.iou_class, "names": names}
    content["protocol"] = {"list_sha256": sha}
    (folder / "scores.json").write_text(json.dumps(content))
    images = [f"p{i}" for i in range(len(counts.areas))]
    matrix = counts.total.matrix.numpy()
    np.savez_compressed(folder / "confusion.npz", matrix=matrix, images=images, **vars(areas))
    return folder


def loop(areas: Areas, draws: np.ndarray) -> tuple[list[float], list[list[float]]]:
    """Mean IoU and IoU of every draw, one image after the other."""
    classes = areas.union.shape[1]
    held = [c for c in range(classes) if areas.union[:, c].any()]
    means, ious = [], []
    for draw in draws:
        inter, union = [0] * classes, [0] * classes
        for image, times in enumerate(draw.astype(int).tolist()):
            for c in range(classes):
                inter[c] += times * int(areas.intersection[image, c])
                union[c] += times * int(areas.union[image, c])
        iou = [i / u if u else float("nan") for i, u in zip(inter, union, strict=True)]
        means.append(float(np.nanmean(iou)) * len(held) / classes)
        ious.append(iou)
    return means, ious


def test_intervals_are_those_of_a_plain_loop(rng: np.random.Generator) -> None:
    areas = Areas.stack(counted(rng, wrong=0.3).areas)
    draws = draw_counts(30, draws=60, seed=3)
    assert (draws.sum(axis=1) == 30).all() and draws.std() > 0.5
    means, ious = loop(areas, draws)
    found = intervals(areas, draws)
    np.testing.assert_allclose(found.miou, np.percentile(means, [2.5, 97.5]), atol=1e-12)
    for c in range(3):
        ends = np.nanpercentile([iou[c] for iou in ious], [2.5, 97.5])
        np.testing.assert_allclose(found.iou_class[c], ends, atol=1e-12)
    assert np.isnan(found.iou_class[3]).all()
    assert any(np.isnan(iou[2]) for iou in ious)  # the rare class is not in every draw


def test_differences_are_paired(rng: np.random.Generator) -> None:
    one, two = (Areas.stack(counted(rng, wrong=w).areas) for w in (0.3, 0.2))
    draws = draw_counts(30, draws=60)
    gains = [b[1] - a[1] for a, b in zip(loop(one, draws)[1], loop(two, draws)[1], strict=True)]
    found = difference_intervals(one, two, draws)
    np.testing.assert_allclose(found.iou_class[1], np.percentile(gains, [2.5, 97.5]), atol=1e-12)


def test_draws_depend_on_the_seed_alone() -> None:
    np.testing.assert_array_equal(draw_counts(9), draw_counts(9))
    assert (draw_counts(9, seed=1) != draw_counts(9, seed=2)).any()


def test_intervals_hold_the_score_and_shrink_with_images(rng: np.random.Generator) -> None:
    widths = []
    for images in (20, 320):
        counts = counted(rng, wrong=0.3, images=images)
        low, high = intervals(Areas.stack(counts.areas), draw_counts(images)).iou_class[1]
        assert low < counts.total.scores().iou_class[1] < high
        widths.append(high - low)
    assert widths[1] < widths[0] / 2


def test_equal_results_do_not_differ(
    tmp_path: Path, rng: np.random.Generator, run_tool: RunTool
) -> None:
    a = save(tmp_path / "a", counted(rng, wrong=0.3))
    code, out, err = run_tool("compare", a, a)
    assert code == 0, err
    assert "[+0.0000, +0.0000]" in out and "] *" not in out and ": 0 of 4 classes" in out
    assert "absent from both" in next(line for line in out.splitlines() if "never" in line)


def test_a_clear_difference_is_marked(
    tmp_path: Path, rng: np.random.Generator, run_tool: RunTool
) -> None:
    a = save(tmp_path / "a", counted(rng, wrong=0.5))
    b = save(tmp_path / "b", counted(rng, wrong=0.1))
    code, out, err = run_tool("compare", a, b)
    assert code == 0, err
    lines = {line.split()[1]: line for line in out.splitlines() if line[:4].strip().isdigit()}
    assert lines["road"].endswith("*") and " +0." in lines["road"]
    assert not lines["car"].endswith("*")
    assert out == run_tool("compare", a, b)[1]  # the same draws every time


def test_results_that_cannot_be_compared(
    tmp_path: Path, rng: np.random.Generator, run_tool: RunTool
) -> None:
    a = save(tmp_path / "a", counted(rng, wrong=0.3))
    others = {
        "classes (sky, road, car, ...)": save(
            tmp_path / "names", counted(rng, wrong=0.3), [*NAMES[:3], "other"]
        ),
        "of different lists": save(tmp_path / "list", counted(rng, wrong=0.3), sha="y"),
        "a has 30 images": save(tmp_path / "part", counted(rng, wrong=0.3, images=29)),
        "tool/test.py wrote": tmp_path / "none",
    }
    for part, other in others.items():
        code, _, err = run_tool("compare", a, other)
        assert_one_sentence(code, err, part)
    relabelled = counted(rng, wrong=0.3)
    relabelled.areas[4][2][0] += 1
    code, _, err = run_tool("compare", a, save(tmp_path / "labels", relabelled))
    assert_one_sentence(code, err, "different labels for 1 of 30 images, first p4")


def change(folder: Path, **entries: object) -> None:
    """Other entries in scores.json; None removes one."""
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
def test_damaged_results_are_a_sentence(
    tmp_path: Path, rng: np.random.Generator, run_tool: RunTool, damage: str
) -> None:
    a = save(tmp_path / "a", counted(rng, wrong=0.3))
    DAMAGE[damage](a)
    for folders in ((a, a), (a, save(tmp_path / "b", counted(rng, wrong=0.3)))):
        code, _, err = run_tool("compare", *folders)
        assert_one_sentence(code, err, f"{a} holds a damaged scores.json or confusion.npz")


@pytest.mark.parametrize("void", [False, True])
def test_a_set_without_a_class_has_no_interval(void: bool) -> None:
    counts = ImageCounts(2)
    counts.add(np.zeros((2, 2), int), np.full((2, 2), 255 if void else 0), image=0)
    found = intervals(Areas.stack(counts.areas), draw_counts(1))
    assert np.isnan(found.miou).all() == void
    assert np.isnan(found.iou_class[1]).all()


def predictions(tmp_path: Path) -> Path:
    """A result folder with the labels of `tiny`, slightly wrong, as predictions."""
    for i in range(4):
        pred = read_label(tmp_path / f"data/labels/p{i}.png")
        pred[pred == 255] = 0
        pred[20:30, :30] = 1
        write_label(tmp_path / f"result/gray/p{i}.png", pred)
    return tmp_path / "result"


def test_a_test_writes_all_of_it(tiny: Path, tmp_path: Path, run_tool: RunTool) -> None:
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
