"""What each tool writes, for tests with invalid output paths."""

import json
import os
import resource
import shlex
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.helpers.raw_data import write_ade20k, write_ids, write_image
from tests.helpers.runs import with_weights


@dataclass(frozen=True)
class Writer:
    """A tool and its arguments; {target} is its output, {world} the folder of inputs.

    `inputs` are the files it reads, relative to {world}.
    """

    words: str
    suffix: str = ""  # of the output file; '' for a folder
    inputs: tuple[str, ...] = ()
    is_slow: bool = False  # unless it is rejected at once

    @property
    def is_folder(self) -> bool:
        return not self.suffix

    def line(self, world: Path, target: Path) -> list[str]:
        """Return the tool and its arguments as a list."""
        return [word.format(world=world, target=target) for word in shlex.split(self.words)]


CONFIG = "--config {world}/tiny.yaml"
WRITERS = {
    "train": Writer(
        f"train {CONFIG} TRAIN.save_path {{target}}", inputs=("data", "run"), is_slow=True
    ),
    "cache": Writer(
        f"train {CONFIG} TRAIN.save_path {{target}}/own/model TRAIN.cache_folder {{target}}",
        inputs=("data",),
        is_slow=True,
    ),
    "test": Writer(
        f"test {CONFIG} TEST.save_folder {{target}} TEST.export '{{{{0: 7, 1: 8, 2: 11}}}}'",
        inputs=("data", "run/model"),
        is_slow=True,
    ),
    "demo": Writer(
        f"demo {CONFIG} --image {{world}}/photos --output {{target}}",
        inputs=("photos",),
        is_slow=True,
    ),
    "check_data": Writer(
        f"check_data {CONFIG} --json {{target}}",
        ".json",
        ("data/train.txt", "data/labels/p0.png", "data/images/p0.png", "tiny.yaml"),
    ),
    "browse_data": Writer(
        f"browse_data {CONFIG} --output {{target}}",
        ".png",
        ("data/images/p0.png", "data/labels/p0.png"),
    ),
    "export": Writer(
        f"export {CONFIG} --format pt2 --output {{target}}",
        ".pt2",
        ("run/model/train_epoch_1.pth",),
        is_slow=True,
    ),
    "convert_weights": Writer(
        "convert_weights --from {world}/run/model/train_epoch_1.pth --to {target}",
        ".pth",
        ("run/model/train_epoch_1.pth",),
    ),
    "plot_log": Writer("plot_log {world}/run --output {target}", ".png", ("data/images/p0.png",)),
    "benchmark": Writer("benchmark metric --runs 1 --output {target}", ".json", ("foreign.json",)),
    "prepare_toy": Writer(
        "prepare_toy --out {target} --train 2 --val 1 --height 96 --width 128", inputs=("data",)
    ),
    "prepare_folder": Writer(
        "prepare_folder --images {world}/own/images --masks {world}/own/masks --out {target} "
        "--config {target}_config",
        inputs=("own", "own/images", "own/masks"),
    ),
    "prepare_folder --config": Writer(
        "prepare_folder --images {world}/own/images --masks {world}/own/masks --out {target}_data "
        "--config {target}",
        inputs=("own", "own/images", "own/masks"),
    ),
    **{
        f"prepare_{name}": Writer(
            f"prepare_{name} --source {{world}}/{name} --out {{target}}", inputs=(name,)
        )
        for name in ("ade20k", "bdd100k", "camvid", "cityscapes", "voc2012")
    },
}


def make_world(config: Path) -> Path:
    """Inputs of all tools beside the config of a tiny run; returns their folder."""
    world = with_weights(config).parent
    record = {"epoch": 1, "train_loss": 1.0, "train_miou": 0.5, "lr": 0.01}
    (world / "run/model/metrics.jsonl").write_text(json.dumps(record) + "\n")
    (world / "foreign.json").write_text('{"mine": 1}\n')
    shutil.copytree(world / "data/images", world / "photos")
    for i in range(3):
        write_image(world / f"own/images/{i}.jpg")
        write_ids(world / f"own/masks/{i}.png", 0, 1, 2)
    write_ade20k(world / "ade20k", {"training": 2, "validation": 1})
    for split in ("train", "val"):
        write_image(world / f"bdd100k/images/10k/{split}/{split}.jpg")
        write_ids(world / f"bdd100k/labels/sem_seg/masks/{split}/{split}.png", 0, 18, 255)
        city = f"{split}/ulm/ulm_000000_000019"
        write_image(world / f"cityscapes/leftImg8bit/{city}_leftImg8bit.png")
        write_ids(world / f"cityscapes/gtFine/{city}_gtFine_labelIds.png", 0, 7, 33)
        write_image(world / f"voc2012/JPEGImages/{split}.jpg")
        write_ids(world / f"voc2012/SegmentationClass/{split}.png", 0, 20, 255)
        names = world / f"voc2012/ImageSets/Segmentation/{split}.txt"
        names.parent.mkdir(parents=True, exist_ok=True)
        names.write_text(f"{split}\n")
    for split in ("train", "val", "test"):
        write_image(world / f"camvid/{split}/0001TP_1.png")
        write_ids(world / f"camvid/{split}annot/0001TP_1.png", 0, 10, 11)
    return world


# Places that are wrong ----------------------------------------------------------------------------


def below_a_file(path: Path) -> Path:
    path.write_text("mine")
    return path / f"below{path.suffix}"


def make_file(path: Path) -> None:
    path.write_text("mine")


def make_full_folder(path: Path) -> Path:
    for name in ("notes.txt", "notes.tmp", "images/a.png", "list/train.txt", f"x{path.suffix}"):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text("mine")
    return path


PLACES: dict[str, Callable[[Path], Path | None]] = {
    "a file": make_file,
    "below a file": below_a_file,
    "a fifo": lambda path: os.mkfifo(path),
    "a link loop": lambda path: path.symlink_to(path),
    "a dangling link": lambda path: path.symlink_to(path.with_name("nowhere")),
    "a link to a file": lambda path: path.symlink_to(_mine(path.with_name(f"mine{path.suffix}"))),
    "a link to a device": lambda path: path.symlink_to("/dev/full"),
    "in /proc": lambda path: Path("/proc", path.name),
    "a name too long": lambda path: path.with_name(f"{'n' * 300}{path.suffix}"),
}
UNUSUAL: dict[str, Callable[[Path], Path]] = {  # which may work
    "a folder": make_full_folder,
    "a name of odd characters": lambda path: path.with_name(f"n\n\x1b[31m {path.suffix}"),
}


def _mine(path: Path) -> Path:
    path.write_text("mine")
    return path


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Files cannot grow beyond `size` bytes: what a full disk is, without one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# What must not change -----------------------------------------------------------------------------


def state_of(*folders: Path) -> dict[str, object]:
    """Path -> what is there, of all that lies below: the content of files up to 1 MB, else size and
    time; where links lead."""
    return {
        str(path): _state(path)
        for folder in folders
        for path in (folder, *sorted(folder.rglob("*")))
    }


def _state(path: Path) -> object:
    if path.is_symlink():
        return os.readlink(path)
    if not path.is_file():
        return path.lstat().st_mode
    stat = path.stat()
    return path.read_bytes() if stat.st_size <= 2**20 else (stat.st_size, stat.st_mtime_ns)
