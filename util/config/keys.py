"""The table of all configuration keys: section, type, default and limits, one line each.

To add a key, add one line to `Config` and a reader.
"""

import dataclasses
import typing
from dataclasses import MISSING, dataclass, field
from typing import Any

SECTIONS = ("DATA", "TRAIN", "Distributed", "TEST")


def key(
    section: str,
    default: Any = MISSING,
    *,
    choices: tuple = (),
    minimum: float | None = None,
    above: float | None = None,
    is_path: bool = False,
    words: tuple[str, ...] = (),
) -> Any:
    """A field of Config: its section, its default (none: the file must give it), its limits.

    `words` are values of a path that are not paths.
    """
    metadata = {
        "section": section,
        "choices": choices,
        "minimum": minimum,
        "above": above,
        "is_path": is_path,
        "words": words,
    }
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class Config:
    """All keys. An empty value in YAML means None for `| None` types and '' for text."""

    data_root: str = key("DATA", is_path=True)
    train_list: str = key("DATA", "", is_path=True)
    val_list: str = key("DATA", "", is_path=True)
    classes: int = key("DATA", minimum=2)
    label_map: dict[int, int] | str = key(
        "DATA", "", is_path=True, words=("cityscapes", "ade20k")
    )  # raw id -> class id: a name, a mapping or a file
    ignore_ids: list[int] = key("DATA", [], minimum=0)

    arch: str = key("TRAIN", "psp")  # a row of ARCHS in model/build.py
    layers: int = key("TRAIN", 50, minimum=1)  # a row of BACKBONES in model/resnet.py
    deep_base: bool | None = key("TRAIN", None)  # None: as the weight file, else the deep stem
    init_weight: str = key("TRAIN", "initmodel/resnet{layers}_v2.pth", is_path=True)
    sync_bn: bool = key("TRAIN", True)
    train_h: int = key("TRAIN", 473)
    train_w: int = key("TRAIN", 473)
    scale_min: float = key("TRAIN", 0.5, above=0)
    scale_max: float = key("TRAIN", 2.0, above=0)
    rotate_min: float = key("TRAIN", -10.0)
    rotate_max: float = key("TRAIN", 10.0)
    zoom_factor: int = key("TRAIN", 8, choices=(1, 2, 4, 8))
    ignore_label: int = key("TRAIN", 255, minimum=0)
    aux_weight: float = key("TRAIN", 0.4, minimum=0)
    loss: str = key("TRAIN", "ce", choices=("ce", "ohem"))
    ohem_threshold: float = key("TRAIN", 0.7, above=0)
    ohem_min_kept: int = key("TRAIN", 100000, minimum=1)  # pixels of a batch, all GPUs together
    class_weights: list[float] | str = key(
        "TRAIN", "", is_path=True, words=("median",), minimum=0
    )  # numbers, median or a file of tool/check_data.py --json
    psa_type: int = key("TRAIN", 2, choices=(0, 1, 2))
    compact: bool = key("TRAIN", False)
    shrink_factor: int = key("TRAIN", 2, minimum=1)
    mask_h: int | None = key("TRAIN", None, minimum=1)
    mask_w: int | None = key("TRAIN", None, minimum=1)
    normalization_factor: float | None = key("TRAIN", 1.0, above=0)
    psa_softmax: bool = key("TRAIN", True)
    train_gpu: list[int] = key("TRAIN", [0], minimum=0)
    workers: int = key("TRAIN", 2, minimum=0)
    batch_size: int = key("TRAIN", 16, minimum=1)
    batch_size_val: int = key("TRAIN", 8, minimum=1)
    base_lr: float = key("TRAIN", 0.01, above=0)
    epochs: int = key("TRAIN", 100, minimum=1)
    start_epoch: int = key("TRAIN", 0, minimum=0)
    power: float = key("TRAIN", 0.9, minimum=0)
    momentum: float = key("TRAIN", 0.9, minimum=0)
    weight_decay: float = key("TRAIN", 0.0001, minimum=0)
    manual_seed: int | None = key("TRAIN", None, minimum=0)
    print_freq: int = key("TRAIN", 10, minimum=1)
    save_freq: int = key("TRAIN", 1, minimum=1)
    save_every_steps: int = key("TRAIN", 0, minimum=0)
    save_every_minutes: float = key("TRAIN", 0.0, minimum=0)
    save_path: str = key("TRAIN", "", is_path=True)
    weight: str = key("TRAIN", "", is_path=True)
    resume: str = key("TRAIN", "", is_path=True, words=("auto",))
    evaluate: bool = key("TRAIN", False)
    amp: str = key("TRAIN", "off", choices=("off", "bf16", "fp16"))
    channels_last: bool = key("TRAIN", False)
    accumulate_steps: int = key("TRAIN", 1, minimum=1)
    activation_checkpointing: bool = key("TRAIN", False)
    compile: bool = key("TRAIN", False)
    freeze_bn: bool = key("TRAIN", False)
    nonfinite: str = key("TRAIN", "stop", choices=("stop", "skip"))
    val_protocol: str = key("TRAIN", "crop", choices=("crop", "test"))

    dist_url: str = key("Distributed", "tcp://127.0.0.1:6789")
    dist_backend: str = key("Distributed", "nccl", choices=("nccl", "gloo"))
    multiprocessing_distributed: bool = key("Distributed", True)
    num_processes: int = key("Distributed", 1, minimum=1)  # on each machine without a GPU
    timeout_minutes: float = key("Distributed", 10.0, above=0)
    world_size: int = key("Distributed", 1, minimum=1)
    rank: int = key("Distributed", 0, minimum=0)

    test_list: str = key("TEST", "", is_path=True)
    split: str = key("TEST", "val", choices=("train", "val", "test"))
    base_size: int = key("TEST", 512, minimum=1)
    test_h: int = key("TEST", 473)
    test_w: int = key("TEST", 473)
    scales: list[float] = key("TEST", [1.0], above=0)
    test_mode: str = key("TEST", "slide", choices=("slide", "whole"))
    batch_windows: int | None = key("TEST", None, minimum=1)  # None: as memory allows
    test_compile: bool = key("TEST", False)
    has_prediction: bool = key("TEST", False)
    skip_existing: bool = key("TEST", False)
    index_start: int = key("TEST", 0, minimum=0)
    index_step: int = key("TEST", 0, minimum=0)
    test_amp: str = key("TEST", "off", choices=("off", "bf16", "fp16"))
    test_gpu: list[int] = key("TEST", [0], minimum=0)
    model_path: str = key("TEST", "", is_path=True)
    save_folder: str = key("TEST", "", is_path=True)
    export: dict[int, int] | str = key(
        "TEST", "", choices=("cityscapes", "ade20k")
    )  # class id -> id that a benchmark's server wants: a name or a mapping
    colors_path: str = key("TEST", "", is_path=True)
    names_path: str = key("TEST", "", is_path=True)


FIELDS = {f.name: f for f in dataclasses.fields(Config)}
TYPES = typing.get_type_hints(Config)


def full_name(name: str) -> str:
    """`base_lr` -> `TRAIN.base_lr`."""
    return f"{FIELDS[name].metadata['section']}.{name}"
