"""Bootstrap intervals over images, and tool/compare.py."""

from pathlib import Path

import numpy as np
import pytest

from tests.conftest import RunTool, assert_one_sentence
from tests.helpers.counts import NAMES, counted, save
from util.evaluation.bootstrap import Areas, difference_intervals, draw_counts, intervals
from util.metric import ImageCounts


def loop(areas: Areas, draws: np.ndarray) -> tuple[list[float], list[list[float]]]:
    """Compute mean IoU and IoU of each draw, image by image."""
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


def test_draws_depend_only_on_the_seed() -> None:
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
    assert "[+0.0000, +0.0000]" in out and "] *" not in out and ": 0 of 4 classes;" in out
    assert out.endswith("; by chance alone about 0.2 would be marked\n")
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


def test_a_class_in_a_single_image_is_not_marked(tmp_path: Path, run_tool: RunTool) -> None:
    """All draws that have it agree, so its interval has no width."""
    for name, hit in (("a", 9), ("b", 3)):
        counts = ImageCounts(len(NAMES))
        for image in range(20):
            matrix = np.diag([50, 50, 0, 0])
            if image == 0:
                matrix[2, 2], matrix[2, 0] = hit, 10 - hit
            counts.add(matrix, image=image)
        save(tmp_path / name, counts)
    code, out, err = run_tool("compare", tmp_path / "a", tmp_path / "b")
    assert code == 0, err
    row = next(line for line in out.splitlines() if line.split()[:1] == ["2"])
    assert row.endswith("[-0.6000, -0.6000]"), out


def test_incomparable_results(tmp_path: Path, rng: np.random.Generator, run_tool: RunTool) -> None:
    a = save(tmp_path / "a", counted(rng, wrong=0.3))
    others = {
        "classes (sky, road, car, ...)": save(
            tmp_path / "names", counted(rng, wrong=0.3), [*NAMES[:3], "other"]
        ),
        "not the same ones": save(tmp_path / "list", counted(rng, wrong=0.3), sha="y"),
        "a has 30 images": save(tmp_path / "part", counted(rng, wrong=0.3, images=29)),
        "written by tool/test.py": tmp_path / "none",
    }
    for part, other in others.items():
        code, _, err = run_tool("compare", a, other)
        assert_one_sentence(code, err, part)
    relabelled = counted(rng, wrong=0.3)
    relabelled.areas[4][2][0] += 1
    code, _, err = run_tool("compare", a, save(tmp_path / "labels", relabelled))
    assert_one_sentence(code, err, "different labels for 1 of 30 images, first p4")


@pytest.mark.parametrize("void", [False, True])
def test_a_set_without_a_class_has_no_interval(void: bool) -> None:
    counts = ImageCounts(2)
    counts.add(np.zeros((2, 2), int) if void else np.array([[4, 0], [0, 0]]), image=0)
    found = intervals(Areas.stack(counts.areas), draw_counts(1))
    assert np.isnan(found.miou).all() == void
    assert np.isnan(found.iou_class[1]).all()
