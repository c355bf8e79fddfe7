"""Samples and batches: independent of the number of workers and processes."""

import gc
import multiprocessing
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import ROOT, write_pair
from util.config import load_config
from util.data.dataset import BatchSampler, Loader, SegmentationData, build_loader
from util.data.image import read_image, read_label, write_image, write_label
from util.data.label_map import LabelMap
from util.data.list_file import read_list
from util.data.transform import train_transform
from util.error import DataError


def test_labels_keep_their_ids(tmp_path: Path) -> None:
    ids = np.arange(200, dtype=np.uint8).reshape(10, 20)
    palette = Image.fromarray(ids).convert("P")
    palette.putpalette(list(range(256)) * 3)
    palette.putdata(ids.ravel().tolist())
    palette.save(tmp_path / "p.png")
    np.testing.assert_array_equal(read_label(tmp_path / "p.png"), ids)
    for top in (199, 300, 65535):  # 8 and 16 bit
        write_label(tmp_path / "w.png", np.where(ids == 199, top, ids.astype(np.int32)))
        assert read_label(tmp_path / "w.png").max() == top


def test_unreadable_files_are_named(tmp_path: Path, rng: np.random.Generator) -> None:
    noise = rng.integers(0, 255, (40, 40, 3)).astype(np.uint8)
    write_image(tmp_path / "ok.png", noise)
    (tmp_path / "cut.png").write_bytes((tmp_path / "ok.png").read_bytes()[:-600])
    (tmp_path / "text.png").write_text("not an image")
    Image.fromarray(noise).save(tmp_path / "ok.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "ok.jpg").read_bytes()[:-300])
    for name in ("cut.png", "text.png", "cut.jpg"):
        with pytest.raises(DataError, match=f"{name} cannot be decoded"):
            read_image(tmp_path / name)
    with pytest.raises(DataError, match="no image"):
        read_image(tmp_path / "none.png")
    with pytest.raises(DataError, match="colour image"):
        read_label(tmp_path / "ok.png")


def test_interrupted_write_keeps_the_old_image(tmp_path: Path) -> None:
    write_image(tmp_path / "x.png", np.zeros((2, 2, 3), np.uint8))
    with pytest.raises(TypeError):
        write_image(tmp_path / "x.png", np.zeros((2, 2, 3), np.float64))
    assert read_image(tmp_path / "x.png").shape == (2, 2, 3)


def make_loader(
    root: Path, count: int, *, workers: int, rank: int = 0, world: int = 1, batch: int = 4
) -> Loader:
    rng = np.random.default_rng(3)
    lines = [
        write_pair(
            root,
            f"{i}",
            rng.integers(0, 255, (20, 24, 3)).astype(np.uint8),
            rng.integers(0, 3, (20, 24)).astype(np.uint8),
        )
        for i in range(count)
    ]
    (root / "l.txt").write_text("\n".join(lines))
    data = SegmentationData(
        read_list(root / "l.txt", root, has_labels=True),
        train_transform((17, 17), scale=(0.5, 2), rotate=(-10, 10), ignore_label=255),
        LabelMap(3, 255),
        seed=5,
    )
    sampler = BatchSampler(count, batch, shuffle=True, seed=5, rank=rank, world_size=world)
    return Loader(data, sampler, workers=workers, pin_memory=False)


def epoch_of(loader: Loader, epoch: int) -> list[torch.Tensor]:
    loader.sampler.start(epoch)
    return [torch.cat([image.flatten(1), label.flatten(1)], 1) for image, label in loader]


def test_batches_do_not_depend_on_workers_or_processes(tmp_path: Path) -> None:
    alone = make_loader(tmp_path, 9, workers=0)
    wanted = epoch_of(alone, 2)
    assert len(wanted) == 2  # 9 = 2 * 4 + 1: the last one is dropped
    with_workers = make_loader(tmp_path, 9, workers=2)
    epoch_of(with_workers, 0)
    for a, b in zip(wanted, epoch_of(with_workers, 2), strict=True):
        assert torch.equal(a, b)
    halves = [
        epoch_of(make_loader(tmp_path, 9, workers=0, rank=r, world=2, batch=2), 2) for r in (0, 1)
    ]
    for whole, *parts in zip(wanted, *halves, strict=True):
        assert torch.equal(whole, torch.cat(parts))
    assert not torch.equal(epoch_of(alone, 3)[0], wanted[0])


@pytest.mark.parametrize("world", [1, 2, 3, 4])
@pytest.mark.parametrize("count", [1, 7, 12])
def test_validation_counts_every_image_once(count: int, world: int) -> None:
    seen = []
    for rank in range(world):
        sampler = BatchSampler(count, 3, shuffle=False, rank=rank, world_size=world)
        batches = list(sampler)
        assert len(batches) == len(sampler)
        seen += [index for batch in batches for _, index in batch]
    assert sorted(seen) == list(range(count))


def test_training_can_start_in_the_middle_of_an_epoch() -> None:
    sampler = BatchSampler(20, 4, shuffle=True, seed=1)
    sampler.start(3)
    whole = list(sampler)
    sampler.start(3, 2)
    assert list(sampler) == whole[2:]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bad_label_stops_the_loader_with_its_name(tmp_path: Path, workers: int) -> None:
    loader = make_loader(tmp_path, 4, workers=workers)
    write_label(tmp_path / "labels/2.png", np.full((20, 24), 77, np.uint8))
    with pytest.raises(DataError, match=r"2\.png holds id 77 \(480 pixels\)"):
        epoch_of(loader, 0)


def test_a_label_of_another_size_is_refused(tmp_path: Path) -> None:
    loader = make_loader(tmp_path, 4, workers=0)
    write_label(tmp_path / "labels/1.png", np.zeros((20, 25), np.uint8))
    with pytest.raises(DataError, match=r"is 24x20, but its label .* is 25x20"):
        epoch_of(loader, 0)


WORKERS = """
import os, signal, sys
if "bare" in sys.argv:  # features missing on Windows
    for name in ("sigwaitinfo", "SIGUSR1", "SIGUSR2", "SIGHUP"):
        delattr(signal, name)
    del os.fork, os.sched_getaffinity
    if __name__ == "__main__":
        del signal.pthread_sigmask

import multiprocessing, time
from util.config import load_config
from util.data.dataset import build_loader

def run():
    cfg = load_config(sys.argv[1], ["TRAIN.workers", "2"])
    loader = build_loader(cfg, is_training=True)
    batches = iter(loader)
    first = next(batches)[0]
    if "bare" not in sys.argv:  # a scheduler's signals to the whole group
        for number in (signal.SIGTERM, signal.SIGUSR1):
            os.killpg(0, number)
        time.sleep(1)
    rest = [image for image, _ in batches]
    loader.sampler.start(1)
    print(len(rest), len(list(loader)), float(first.double().sum()))

if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[2])
    if "bare" in sys.argv:
        run()
    else:
        from util.distributed import StopRequest
        with StopRequest():
            run()
"""


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver", "spawn bare"])
def test_workers_start_in_any_way_and_outlive_signals(
    tiny: Path, tmp_path: Path, method: str
) -> None:
    script = tmp_path / "run.py"
    script.write_text(WORKERS)
    words = [sys.executable, str(script), str(tiny), *method.split()]
    done = subprocess.run(
        words, env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=tmp_path, capture_output=True,
        text=True, timeout=240, start_new_session=True,
    )  # fmt: skip
    assert done.returncode == 0 and not done.stderr, done.stderr
    rest, again, total = done.stdout.split()
    loader = build_loader(load_config(tiny), is_training=True)
    assert (rest, again) == ("1", "2")
    assert float(total) == float(next(iter(loader))[0].double().sum())


def test_workers_end_at_once_with_their_loader_or_their_process(tmp_path: Path) -> None:
    others = set(multiprocessing.active_children())  # from loaders of other tests
    loader = make_loader(tmp_path, 8, workers=1)
    batches = iter(loader)
    next(batches)
    (worker,) = set(multiprocessing.active_children()) - others
    start = time.monotonic()
    del loader, batches
    gc.collect()
    worker.join(4)
    assert not worker.is_alive() and time.monotonic() - start < 4  # 10 s if they are terminated


@pytest.mark.parametrize(
    ("error", "part"),
    [
        (MemoryError(), "(out of memory)"),
        (cv2.error("OpenCV: Failed to allocate: Insufficient memory"), "(out of memory)"),
        (cv2.error("src.cols < SHRT_MAX"), "src.cols < SHRT_MAX"),
    ],
)
def test_an_image_too_large_to_augment_is_named(
    tmp_path: Path, error: Exception, part: str
) -> None:
    def transform(*given: object) -> None:
        raise error

    loader = make_loader(tmp_path, 4, workers=0)
    loader.data = replace(loader.data, transform=transform)
    found = loader.data[0, 1]
    assert isinstance(found, DataError) and "images/1.png of 24x20 cannot be augmented" in str(
        found
    )
    assert part in str(found) and "cut it into tiles" in str(found)
