"""What a test's numbers depend on: made from the config, kept beside the results."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from util.config import NETWORK_KEYS, Config
from util.data.list_file import Sample, read_list, result_names
from util.error import CheckpointError, ConfigError
from util.evaluation.result_folder import file_sha256
from util.evaluation.submission import check_names
from util.inference import SlidingPredictor, window_starts

Network = TypeVar("Network")


def tested_images(cfg: Config) -> tuple[list[Sample], list[str]]:
    """The images to test, TEST.index_start and index_step applied, and their result names."""
    list_path = cfg.test_list or cfg.val_list
    if not list_path:
        raise ConfigError("TEST.test_list is empty: set it in the config or as an override")
    samples = read_list(list_path, cfg.data_root, has_labels=cfg.split != "test")
    names = result_names(samples)  # of the whole list, so that a part gets the same names
    if cfg.export:
        check_names(cfg.export, names)
    if cfg.index_start >= len(samples):
        raise ConfigError(
            f"TEST.index_start {cfg.index_start} is past the end of {list_path}, which holds "
            f"{len(samples)} images"
        )
    end = cfg.index_start + cfg.index_step if cfg.index_step else len(samples)
    return samples[cfg.index_start : end], names[cfg.index_start : end]


def load_checkpoint(
    find: Callable[[], str], load: Callable[[str], Network]
) -> tuple[str, str, Network]:
    """The path of a checkpoint, its SHA-256 and its network, all of one file.

    A training that is under way may remove or replace files at any moment: then once more.
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
    """Tells a file from another one of the same name; None where there is none."""
    try:
        stat = os.stat(path)
    except OSError:
        return None
    return stat.st_ino, stat.st_mtime_ns


def prediction_protocol(
    cfg: Config, checkpoint: str, digest: str, predictor: SlidingPredictor
) -> dict[str, Any]:
    """All that a prediction depends on besides its image; `digest` is the checkpoint's SHA-256."""
    crop = (cfg.test_h, cfg.test_w)
    return {
        "checkpoint": checkpoint,
        "checkpoint_sha256": digest,
        "network": {name: getattr(cfg, name) for name in NETWORK_KEYS},
        "scales": cfg.scales,
        "base_size": cfg.base_size,
        "crop": list(crop),
        "stride": [window_starts(2 * side, side)[1] for side in crop],  # where the second begins
        "flip": True,
        "mode": cfg.test_mode,
        "precision": {"off": "float32"}.get(predictor.amp, predictor.amp),
        "batch_windows": predictor.batch_windows,
    }


# Of predictions made elsewhere nothing is known.
UNKNOWN_PROTOCOL: dict[str, Any] = {"checkpoint": None, "checkpoint_sha256": None}


def scoring_protocol(cfg: Config, origin: dict[str, Any]) -> dict[str, Any]:
    """The rest that scores.json tells; `origin` is the content of environment.json."""
    list_path = cfg.test_list or cfg.val_list
    return {
        "list": list_path,
        "list_sha256": file_sha256(list_path),
        "has_prediction": cfg.has_prediction,
        # The number of threads of a CPU changes with that of the processes; no score does.
        "device": origin["device"].partition(",")[0],
        "versions": {name: origin[name] for name in ("python", "torch", "numpy", "opencv")},
        "git_commit": origin["git_commit"],
        "has_git_diff": origin["has_git_diff"],
    }


def result_path(cfg: Config, checkpoint: str) -> Path:
    """TEST.save_folder, or <run folder>/result/epoch_<N>/<split>/<ss|ms>."""
    if cfg.save_folder:
        return Path(cfg.save_folder)
    name = Path(checkpoint).stem.removeprefix("train_")
    scales = "ss" if len(cfg.scales) == 1 else "ms"
    run = Path(cfg.save_path).parent if cfg.save_path else Path(checkpoint).parent.parent
    return run / "result" / name / cfg.split / scales
