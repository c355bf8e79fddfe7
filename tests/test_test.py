"""tool/test.py on several processes, killed and started again, interrupted, and with an export."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from model import build_model
from tests.conftest import ROOT, RunTool, assert_one_sentence, command
from util.config import load_config
from util.data.image import read_label
from util.data.label_map import load_export
from util.training.weight_file import save_atomically

IMAGES = 12


@pytest.fixture
def ready(tiny: Path, tmp_path: Path) -> Path:
    """`tiny` with a checkpoint of random weights and a longer test list, of images by city."""
    torch.manual_seed(3)
    model = build_model(load_config(tiny))
    folder = tmp_path / "run/model"
    folder.mkdir(parents=True)
    save_atomically(folder / "train_epoch_1.pth", {"state_dict": model.state_dict()})
    lines = []
    for i in range(IMAGES):
        image = Path("images", ("ulm", "bonn")[i % 2], f"ulm_000000_{i:06}_leftImg8bit.png")
        (tmp_path / "data" / image).parent.mkdir(exist_ok=True)
        shutil.copy(tmp_path / f"data/images/p{i % 4}.png", tmp_path / "data" / image)
        lines.append(f"{image} labels/p{i % 4}.png")
    (tmp_path / "data/val.txt").write_text("\n".join(lines))
    return tiny


def words(config: Path, folder: Path, *more: object) -> list[object]:
    return ["--config", config, "TEST.save_folder", folder, "print_freq", 1, *more]


def scores(folder: Path) -> dict:
    """scores.json but for the timings."""
    content = json.loads((folder / "scores.json").read_text())
    for name in ("seconds", "images_per_second"):
        assert content["protocol"].pop(name) > 0
    return content


def assert_same_results(a: Path, b: Path) -> None:
    assert scores(a) == scores(b)
    with np.load(a / "confusion.npz") as one, np.load(b / "confusion.npz") as two:
        assert one.files == two.files and one["images"].tolist() == two["images"].tolist()
        for name in one.files:
            np.testing.assert_array_equal(one[name], two[name])
    names = [
        sorted(p.relative_to(f).as_posix() for p in f.rglob("*") if p.suffix in (".png", ".part"))
        for f in (a, b)
    ]
    assert names[0] == names[1] and len(names[0]) == 3 * IMAGES
    for name in names[0]:
        assert (a / name).read_bytes() == (b / name).read_bytes(), name


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
    # What was predicted is scored by several processes too.
    more = ["Distributed.num_processes", 2, "TEST.has_prediction", "True"]
    done = command(*tool, *words(ready, tmp_path / "n1", *more), OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    again, before = scores(tmp_path / "n1"), scores(tmp_path / "n2")
    assert again["protocol"].pop("has_prediction") and not before["protocol"].pop("has_prediction")
    assert again == before  # protocol.json says how they were made


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


def start(*arguments: object) -> subprocess.Popen:
    # As many threads as here: with others, sums in the network may be rounded otherwise.
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    return subprocess.Popen(
        [sys.executable, "tool/test.py", *map(str, arguments)],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(path: Path, pattern: str, count: int) -> None:
    """Until so many files are there."""
    end = time.monotonic() + 60
    while len(list(path.rglob(pattern))) < count:
        assert time.monotonic() < end, f"no {count} {pattern} in {path}"
        time.sleep(0.002)


def test_killed_and_started_again(ready: Path, tmp_path: Path, run_tool: RunTool) -> None:
    """kill -9 after some predictions, of which one is then cut short as a full disk would."""
    part, whole = tmp_path / "part", tmp_path / "whole"
    with start(*words(ready, part)) as run:
        wait_for(part / "gray", "*.png", 4)
        run.kill()
    left = sorted((part / "gray").rglob("[!.]*.png"))
    assert 4 <= len(left) < IMAGES and not (part / "scores.json").exists()
    left[0].write_bytes(left[0].read_bytes()[:60])
    for path in part.rglob(".*.part"):  # the kill may leave a hidden one, which is in nobody's way
        path.unlink()
    code, out, err = run_tool("test", *words(ready, part, "TEST.skip_existing", "True"))
    assert code == 0, err
    found = len(left) - 1
    assert f"{found} predictions reused, {IMAGES - found} made" in out
    assert run_tool("test", *words(ready, whole))[0] == 0
    assert_same_results(part, whole)


def files(folder: Path) -> dict[str, bytes]:
    """But for the log, which says that it failed."""
    found = sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".log")
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


@pytest.mark.parametrize("skip_existing", [False, True])
def test_a_folder_keeps_the_predictions_of_one_protocol(
    ready: Path, tmp_path: Path, run_tool: RunTool, skip_existing: bool
) -> None:
    """Neither replaced nor mixed, and what is there is scored as what it is."""
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
        assert (folder / name).read_bytes() == before[name]  # as they were predicted


def test_a_dataset_is_not_taken_for_a_result_folder(
    ready: Path, tmp_path: Path, run_tool: RunTool
) -> None:
    """Images in color/ and labels in gray/, as results have them."""
    data = tmp_path / "data"
    (data / "images").rename(data / "color")
    (data / "labels").rename(data / "gray")
    lines = [f"color/p{i}.png gray/p{i}.png" for i in range(4)]
    (data / "val.txt").write_text("\n".join(lines))
    before = files(data)
    code, _, err = run_tool("test", *words(ready, data))
    assert_one_sentence(code, err, "TEST.save_folder", "gray/p0.png", "choose another folder")
    assert files(data) == before


@pytest.mark.slow
def test_a_disk_without_space_ends_the_test_with_a_sentence(ready: Path, tmp_path: Path) -> None:
    """At each place where something is written: a limit on the size of files is such a disk."""
    whole = tmp_path / "whole"
    script = 'ulimit -f "$1"; shift; exec "$@"'
    reached = set()
    for blocks in (0, 1, 2, 6, 20):  # of 512 or 1024 bytes
        tool = (sys.executable, "tool/test.py", *words(ready, whole, "TEST.index_step", 1))
        done = command("sh", "-c", script, "sh", blocks, *tool)
        assert done.returncode in (0, 2), done.stderr
        if done.returncode:
            assert "Traceback" not in done.stderr, done.stderr
            assert "File too large" in done.stderr
            reached.add(done.stderr.split(": ")[1].rpartition("/")[2])
        assert not list(whole.rglob("*.part"))
    assert len(reached) > 1


def test_interrupted(ready: Path, tmp_path: Path) -> None:
    with start(*words(ready, tmp_path / "out")) as run:
        wait_for(tmp_path / "out/gray", "*.png", 1)
        begin = time.monotonic()
        run.send_signal(signal.SIGINT)
        _, err = run.communicate(timeout=60)
        assert time.monotonic() - begin < 10
    assert run.returncode == 130 and err.strip().splitlines()[-1] == "interrupted", err
    assert "Traceback" not in err and not list(tmp_path.rglob("*.part"))


def test_a_signal_stops_the_test_and_it_goes_on(
    ready: Path, tmp_path: Path, run_tool: RunTool
) -> None:
    """As before a scheduler's time limit: what has begun is finished, then exit code 75."""
    out = tmp_path / "out"
    with start(*words(ready, out)) as run:
        wait_for(out / "gray", "*.png", 1)
        run.send_signal(signal.SIGUSR1)
        text, err = run.communicate(timeout=60)
    assert run.returncode == 75 and not err, err
    assert "stopped by a signal" in text and "TEST.skip_existing True continues" in text
    assert not (out / "scores.json").exists() and not list(out.rglob("*.part"))
    code, text, err = run_tool("test", *words(ready, out, "TEST.skip_existing", "True"))
    assert code == 0, err
    assert " 0 predictions were there" not in text and (out / "scores.json").is_file()


def has_begun(run: subprocess.Popen, folder: Path, moment: str) -> bool:
    """Whether a test has come to that moment."""
    if moment == "import":
        return "libtorch" in Path(f"/proc/{run.pid}/maps").read_text()
    if moment == "folder":
        return (folder / "protocol.json").exists()
    return len(list(folder.glob("gray/*/[!.]*.png"))) >= {"loop": 1, "report": IMAGES}[moment]


MOMENTS = [(moment, "SIGTERM") for moment in ("import", "folder", "loop", "report")]
MOMENTS += [("report", "SIGUSR1"), ("import", "SIGINT"), ("report", "SIGINT")]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="looks into /proc")
@pytest.mark.parametrize(("moment", "name"), MOMENTS)
def test_a_signal_at_any_moment_ends_the_test_in_order(
    ready: Path, tmp_path: Path, run_tool: RunTool, moment: str, name: str
) -> None:
    out = tmp_path / "out"
    with start(*words(ready, out)) as run:
        end = time.monotonic() + 60
        while not has_begun(run, out, moment):
            assert time.monotonic() < end and run.poll() is None
            time.sleep(0.002)
        run.send_signal(getattr(signal, name))
        _, err = run.communicate(timeout=60)
    assert "Traceback" not in err
    code = 130 if name == "SIGINT" else 75
    is_done = (out / "scores.json").exists()  # the signal may come when all is done
    assert run.returncode == code or (is_done and run.returncode == 0), err
    code, _, err = run_tool("test", *words(ready, out, "TEST.skip_existing", "True"))
    assert code == 0 and (out / "scores.json").exists(), err
    assert not list(out.rglob("*.part"))


def test_export_for_a_server(ready: Path, tmp_path: Path, run_tool: RunTool) -> None:
    folder = tmp_path / "out"
    more = ["TEST.export", "{0: 7, 1: 8, 2: 11}", "TEST.index_step", 3]
    code, out, err = run_tool("test", *words(ready, folder, *more))
    assert code == 0, err
    assert f"(pack them for the server): {folder}/submission" in out
    files = sorted(p.name for p in (folder / "submission").iterdir())
    assert files == [f"ulm_000000_{i:06}_leftImg8bit.png" for i in range(3)]
    saved = load_export({0: 7, 1: 8, 2: 11}, classes=3)
    for i, name in enumerate(files):
        gray = read_label(folder / "gray" / ("ulm", "bonn")[i % 2] / name)
        np.testing.assert_array_equal(read_label(folder / "submission" / name), saved[gray])
    # Of existing predictions too, and without labels.
    shutil.rmtree(folder / "submission")
    more += ["TEST.has_prediction", "True", "TEST.split", "test"]
    assert run_tool("test", *words(ready, folder, *more))[0] == 0
    assert len(list((folder / "submission").iterdir())) == 3
    code, _, err = run_tool("test", *words(ready, folder, "TEST.export", "cityscapes"))
    assert_one_sentence(code, err, "names 19 classes, 0..18, but DATA.classes is 3")
