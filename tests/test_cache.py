"""TRAIN.cache_folder: same batches, bounded size, shared, partial files are ignored."""

import multiprocessing
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import RunTool, assert_one_sentence
from util.config import Config, load_config
from util.data.dataset import build_data, build_loader


def config(tiny: Path, *pairs: object) -> Config:
    return load_config(tiny, ["cache_folder", str(tiny.parent / "cache"), *map(str, pairs)])


def files(tiny: Path) -> list[Path]:
    return sorted((tiny.parent / "cache").glob("*/*"))


@pytest.mark.parametrize("augment", ["stepwise", "fused"])
@pytest.mark.parametrize("label_map", ["", "{0: 0, 1: 2, 2: 1}"])
def test_batches_are_equal_with_and_without(tiny: Path, augment: str, label_map: str) -> None:
    pairs = ["augment", augment, *(["label_map", label_map] if label_map else [])]
    plain = list(build_loader(load_config(tiny, pairs), is_training=True))
    for _ in range(2):  # filled, then read
        cached = list(build_loader(config(tiny, *pairs), is_training=True))
        for want, found in zip(plain, cached, strict=True):
            assert torch.equal(want[0], found[0]) and torch.equal(want[1], found[1])
    assert [path.name for path in files(tiny)] == ["0.raw", "1.raw", "2.raw", "3.raw"]


def test_the_second_epoch_decodes_nothing(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = build_data(config(tiny), is_training=True)
    first = [data.load(i) for i in range(4)]
    monkeypatch.setattr("util.data.dataset.load", None)
    for i, (image, label) in enumerate(first):
        again, ids = data.load(i)
        assert np.array_equal(image, again) and np.array_equal(label, ids)
        assert again.dtype == np.uint8 and not again.flags.writeable


def test_a_changed_image_is_decoded_again(tiny: Path) -> None:
    data = build_data(config(tiny), is_training=True)
    data.load(0)
    path = data.samples[0].image
    cv2.imwrite(str(path), np.full((48, 64, 3), 77, np.uint8))
    os.utime(path, (1, 1))
    assert (data.load(0)[0] == 77).all() and (data.load(0)[0] == 77).all()
    assert len(files(tiny)) == 1


def test_a_file_of_the_same_size_and_time_is_decoded_again(tiny: Path) -> None:
    """As labels of one archive may be, all of one date and uncompressed."""
    data = build_data(config(tiny), is_training=True)
    path = data.samples[0].image
    for value in (7, 9):
        Image.fromarray(np.full((48, 64, 3), value, np.uint8)).save(path, "BMP")
        os.utime(path, (1, 1))
        assert (data.load(0)[0] == value).all()


@pytest.mark.parametrize("damage", [b"", b"short", None])
def test_damaged_cache_file_is_rewritten(tiny: Path, damage: bytes | None) -> None:
    data = build_data(config(tiny), is_training=True)
    want = data.load(1)[0]
    path = files(tiny)[0]
    whole = path.read_bytes()
    path.write_bytes(whole[:-7] if damage is None else damage)
    assert np.array_equal(data.load(1)[0], want)
    assert path.read_bytes() == whole


def test_the_limit_holds(tiny: Path) -> None:
    size = 48 * 64 * 4 + 8  # bytes of a file
    data = build_data(config(tiny, "cache_gib", 2.5 * size / 2**30), is_training=True)
    for i in range(4):
        data.load(i)
    assert len(files(tiny)) == 2
    # Files cached for another list count as well.
    other = build_data(
        config(tiny, "cache_gib", 2.5 * size / 2**30, "ignore_ids", "[2]"), is_training=True
    )
    for i in range(4):
        other.load(i)
    assert sum(path.stat().st_size for path in files(tiny)) <= 2.5 * size


def test_processes_that_write_the_same_sample_leave_one_file(tiny: Path) -> None:
    data = build_data(config(tiny), is_training=True)
    context = multiprocessing.get_context("fork")
    both = [context.Process(target=data.load, args=(2,)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join()
    assert [path.name for path in files(tiny)] == ["2.raw"]


def test_invalid_cache_folder(tiny: Path, run_tool: RunTool) -> None:
    code, _, err = run_tool("train", "--config", tiny, "cache_folder", tiny)
    assert_one_sentence(code, err, f"TRAIN.cache_folder {tiny} cannot be used")


def test_full_disk_is_reported_once_and_training_continues(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("util.data.cache._write", full)
    data = build_data(config(tiny), is_training=True)
    with caplog.at_level("WARNING", logger="semseg"):
        assert all(data.load(i)[0].shape == (48, 64, 3) for i in range(4))
    assert [r.message for r in caplog.records if "cannot be filled further" in r.message] == [
        f"TRAIN.cache_folder {data.cache.folder} cannot be filled further: No space left on device"
    ]
