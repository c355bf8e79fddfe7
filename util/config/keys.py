"""All configuration keys; those of TRAIN are in train_keys.py.

To add a key, add an entry to its section and use it in the code.
"""

import dataclasses
import typing
from dataclasses import dataclass

from util.config.key import key
from util.config.train_keys import Train


@dataclass(frozen=True, kw_only=True)
class Data:
    """Image and label lists, and the meaning of label ids."""

    data_root: str = key(is_path=True, help="folder to which the paths in the lists are relative")
    train_list: str = key(
        "", is_path=True, help="list of the training images, `image label` per line"
    )
    val_list: str = key("", is_path=True, help="list of the validation images")
    classes: int = key(
        span=(2, 65535), network=True, help="number of classes; label ids are 0..classes-1"
    )
    label_map: dict[int, int] | str = key(
        "",
        is_path=True,
        words=("cityscapes", "ade20k"),
        help="mapping from ids in the label files to class ids: `cityscapes`, `ade20k`, "
        "a mapping such as `{0: 0, 255: 1}` or a file",
    )
    ignore_ids: list[int] = key(
        [], span=(-32768, 65535), help="ids in the label files that are treated as ignore_label"
    )


@dataclass(frozen=True, kw_only=True)
class Distributed:
    """Processes and nodes."""

    dist_url: str = key(
        "tcp://127.0.0.1:6789", help="with world_size > 1: tcp://ADDRESS:PORT of the first node"
    )
    dist_backend: str = key(
        "nccl", choices=("nccl", "gloo"), help="communication between GPUs; CPUs always use gloo"
    )
    multiprocessing_distributed: bool = key(
        True, help="one process per listed GPU; False: a single process on the first GPU"
    )
    num_processes: int = key(1, span=(1, 1024), help="processes per node if there is no GPU")
    timeout_minutes: float = key(
        10.0, above=(0, 100000), help="stop if a process waits this long for another"
    )
    world_size: int = key(
        1, span=(1, 65536), help="number of nodes, if the same command is started on each"
    )
    rank: int = key(0, span=(0, 65535), help="number of this node, from 0")


@dataclass(frozen=True, kw_only=True)
class Test:
    """Images to test, test protocol and output."""

    test_list: str = key(
        "",
        is_path=True,
        help="list of the images to test; empty: val_list, or train_list with `split train`",
    )
    split: str = key(
        "val",
        choices=("train", "val", "test"),
        help="name of the split, used in the path of the results; `test` needs no labels",
    )
    base_size: int = key(512, span=(1, 65536), help="long side of an image at scale 1")
    test_h: int = key(473, span=(1, 8193), help="height of the sliding window, see train_h")
    test_w: int = key(473, span=(1, 8193), help="width of the sliding window")
    scales: list[float] = key(
        [1.0], span=(0.01, 100), help="multiples of base_size; predictions are averaged over them"
    )
    test_mode: str = key(
        "slide",
        choices=("slide", "whole"),
        help="`slide`: windows of test_h x test_w; `whole`: each scaled image in one forward pass",
    )
    batch_windows: int | None = key(
        None,
        span=(1, 65536),
        help="windows per forward pass, flipped ones included; empty: as many as memory allows",
    )
    test_compile: bool = key(
        False, help="compile the network with torch.compile; needs a C++ compiler"
    )
    has_prediction: bool = key(False, help="score existing predictions in save_folder")
    skip_existing: bool = key(
        False, help="resume an interrupted test: keep predictions of the same protocol"
    )
    index_start: int = key(0, span=(0, 2**31 - 1), help="first image of the list to test")
    index_step: int = key(0, span=(0, 2**31 - 1), help="number of images to test; 0: to the end")
    test_amp: str = key(
        "off",
        choices=("off", "tf32", "bf16", "fp16"),
        help="precision of the network when testing, see TRAIN.amp",
    )
    test_gpu: list[int] = key([0], span=(0, 1023), help="GPUs to test on, one process each")
    model_path: str = key(
        "", is_path=True, help="checkpoint to test; empty: the newest in save_path"
    )
    save_folder: str = key(
        "",
        is_path=True,
        help="folder for the results; empty: `<run folder>/result/epoch_<N>/<split>/<ss or ms>`",
    )
    export: dict[int, int] | str = key(
        "",
        choices=("cityscapes", "ade20k"),
        help="also write PNGs with the ids that a benchmark server expects: `cityscapes`, "
        "`ade20k` or `{class id: id to write}`",
    )
    colors_path: str = key(
        "", is_path=True, help="file with one `R G B` line per class; empty: generated colours"
    )
    names_path: str = key(
        "", is_path=True, help="file with one class name per line; empty: `class 0`, `class 1`, ..."
    )


@dataclass(frozen=True, kw_only=True)
class Config(Test, Distributed, Train, Data):
    """All keys in one flat class. Empty YAML values are None for `| None` types and '' for text."""


SECTIONS = {"DATA": Data, "TRAIN": Train, "Distributed": Distributed, "TEST": Test}
SECTION_OF = {f.name: name for name, part in SECTIONS.items() for f in dataclasses.fields(part)}
FIELDS = {f.name: f for f in dataclasses.fields(Config)}
TYPES = typing.get_type_hints(Config)
NETWORK_KEYS = tuple(name for name, f in FIELDS.items() if f.metadata["network"])


def full_name(name: str) -> str:
    """`base_lr` -> `TRAIN.base_lr`."""
    return f"{SECTION_OF[name]}.{name}"
