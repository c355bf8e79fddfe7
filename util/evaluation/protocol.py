"""The test protocol: everything the scores depend on, saved with the results."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from util.config import NETWORK_KEYS, Config
from util.data.file import file_sha256
from util.data.list_file import Sample, read_lines, read_list, result_names
from util.error import CheckpointError, ConfigError, DataError
from util.evaluation.submission import check_names
from util.inference import SlidingPredictor, window_starts

Network = TypeVar("Network")


def tested_images(cfg: Config) -> tuple[list[Sample], list[str]]:
    """Return the images to test, selected by TEST.index_start and index_step, and their names."""
    list_path = tested_list(cfg)
    samples = read_list(list_path, cfg.data_root, has_labels=cfg.split != "test")
    if cfg.split != "test":
        _check_repeated(samples, list_path, cfg.data_root)
    names = result_names(samples)  # of the whole list, so that names do not depend on the selection
    if cfg.export:
        check_names(cfg.export, names)
    if cfg.index_start >= len(samples):
        raise ConfigError(
            f"TEST.index_start {cfg.index_start} is past the end of {list_path}, which has "
            f"{len(samples)} images: choose a smaller number"
        )
    end = cfg.index_start + cfg.index_step if cfg.index_step else len(samples)
    return samples[cfg.index_start : end], names[cfg.index_start : end]


def tested_list(cfg: Config) -> str:
    """Return TEST.test_list or the list of the split. Raises ConfigError if both are empty.

    Also if TEST.split train contradicts TEST.test_list: the scores would be those of val_list.
    """
    name = "train_list" if cfg.split == "train" else "val_list"
    tested, val, train = map(os.path.abspath, (cfg.test_list, cfg.val_list, cfg.train_list))
    if cfg.split == "train" and cfg.test_list and tested == val != train:
        raise ConfigError(
            f"TEST.split is train, but TEST.test_list {cfg.test_list} is DATA.val_list: set "
            "TEST.test_list '' to test the training images, or TEST.split val"
        )
    if found := cfg.test_list or getattr(cfg, name):
        return found
    raise ConfigError(
        f"TEST.test_list is empty: set it or DATA.{name} in the config or as an override"
    )


def _check_repeated(samples: Sequence[Sample], list_path: str, data_root: str) -> None:
    """Raise DataError if a list with labels names an image twice: it would count twice."""
    first: dict[str, int] = {}
    for (number, _), sample in zip(read_lines(list_path, data_root), samples, strict=True):
        earlier = first.setdefault(os.path.abspath(sample.image), number)
        if earlier != number:
            raise DataError(
                f"{list_path} lines {earlier} and {number} name the same image {sample.image}, "
                "which would count twice in the scores: remove one of them"
            )


def load_checkpoint(
    find: Callable[[], str], load: Callable[[str], Network]
) -> tuple[str, str, Network]:
    """Find and load a checkpoint; return its path, its SHA-256 and its network.

    A running training may remove or replace the file meanwhile, so this is tried several times.
    """
    for attempt in range(5):
        path = find()
        before = _identity(path)
        try:
            network, digest = load(path), file_sha256(path)
        except (CheckpointError, FileNotFoundError):
            if attempt == 4 or (find(), _identity(path)) == (path, before):
                raise
        else:
            if _identity(path) == before:
                return path, digest, network
    raise CheckpointError(f"{path} is replaced faster than it can be read: test a copy of it")


def _identity(path: str) -> tuple[int, int] | None:
    """Identify a file, to notice when it is replaced by another; None if there is no file."""
    try:
        stat = os.stat(path)
    except OSError:
        return None
    return stat.st_ino, stat.st_mtime_ns


def prediction_protocol(
    cfg: Config, checkpoint: str, digest: str, predictor: SlidingPredictor
) -> dict[str, Any]:
    """Return everything a prediction depends on except the image; `digest` is of the checkpoint."""
    crop = (cfg.test_h, cfg.test_w)
    return {
        "checkpoint": checkpoint,
        "checkpoint_sha256": digest,
        "network": {name: getattr(cfg, name) for name in NETWORK_KEYS},
        "scales": cfg.scales,
        "base_size": cfg.base_size,
        "crop": list(crop),
        "stride": [window_starts(2 * side, side)[1] for side in crop],  # start of the second window
        "flip": True,
        "mode": cfg.test_mode,
        "precision": {"off": "float32"}.get(predictor.amp, predictor.amp),
        "batch_windows": predictor.batch_windows,
    }


# For predictions made by other programs.
UNKNOWN_PROTOCOL: dict[str, Any] = {"checkpoint": None, "checkpoint_sha256": None}


def scoring_protocol(cfg: Config, origin: dict[str, Any]) -> dict[str, Any]:
    """Return what else scores.json records; `origin` is the content of environment.json."""
    list_path = tested_list(cfg)
    return {
        "list": list_path,
        "list_sha256": file_sha256(list_path),
        "has_prediction": cfg.has_prediction,
        # Without the number of CPU threads: it depends on the number of processes, scores do not.
        "device": origin["device"].partition(",")[0],
        "versions": {name: origin[name] for name in ("python", "torch", "numpy", "opencv")},
        "git_commit": origin["git_commit"],
        "has_git_diff": origin["has_git_diff"],
    }


def result_path(cfg: Config, checkpoint: str) -> Path:
    """Return TEST.save_folder or <run folder>/result/epoch_<N>/<split>/<ss|ms>."""
    if cfg.save_folder:
        return Path(cfg.save_folder)
    name = Path(checkpoint).stem.removeprefix("train_")
    scales = "ss" if len(cfg.scales) == 1 else "ms"
    run = Path(cfg.save_path).parent if cfg.save_path else Path(checkpoint).parent.parent
    return run / "result" / name / cfg.split / scales
