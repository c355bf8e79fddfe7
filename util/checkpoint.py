"""Weight files: atomic saving, safe loading, and a strict fit with a readable report."""

import os
import pickle
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from util.error import CheckpointError, ConfigError

KEEP = 2  # the newest, and one before it to fall back on
_SHOWN = 5  # names listed per kind of misfit


def checkpoint_path(folder: str | Path, epoch: int) -> Path:
    """File of the state after `epoch` epochs."""
    return Path(folder) / f"train_epoch_{epoch}.pth"


def checkpoints(folder: str | Path) -> list[Path]:
    """The epoch checkpoints of a folder, newest (highest epoch) first."""
    return sorted(
        (p for p in Path(folder).glob("train_epoch_*.pth") if epoch_of(p) is not None),
        key=lambda p: epoch_of(p) or 0,
        reverse=True,
    )


def epoch_of(path: str | Path) -> int | None:
    """`train_epoch_7.pth` -> 7; None for other names."""
    match = re.fullmatch(r"train_epoch_(\d+)\.pth", Path(path).name)
    return int(match[1]) if match else None


def find_checkpoint(model_path: str, save_path: str) -> str:
    """TEST.model_path, or where it is empty the newest checkpoint of TRAIN.save_path."""
    if model_path:
        return model_path
    found = checkpoints(save_path) if save_path else []
    if not found:
        raise CheckpointError(
            f"TEST.model_path is empty and TRAIN.save_path '{save_path}' holds no "
            "train_epoch_<N>.pth: train first (sh tool/train.sh), or name a file in TEST.model_path"
        )
    return str(found[0])


def find_resume(resume: str, save_path: str) -> str:
    """TRAIN.resume with `auto` looked up: the checkpoint to go on from, '' for a new run.

    Raises ConfigError where a new run would overwrite an earlier one.
    """
    found = checkpoints(save_path)
    if resume == "auto":
        return str(found[0]) if found else ""
    if found and not resume:
        raise ConfigError(
            f"TRAIN.save_path already holds {found[0]}: go on from it with TRAIN.resume auto, or "
            "start anew with another TRAIN.save_path or after removing that folder"
        )
    return resume


def save_checkpoint(
    folder: str | Path, content: Mapping[str, Any], *, is_due: bool, is_best: bool
) -> list[Path]:
    """Write train_epoch_<content['epoch']>.pth if due and best.pth if best; keep the newest few.

    Returns what was written.
    """
    written = []
    if is_due:
        written.append(checkpoint_path(folder, content["epoch"]))
    if is_best:
        written.append(Path(folder) / "best.pth")
    for path in written:
        save_atomically(path, content)
    for old in checkpoints(folder)[KEEP:]:
        old.unlink()
    return written


def save_atomically(path: Path, content: Mapping[str, Any]) -> None:
    """torch.save to a temporary file, then rename: readers see the old file or the new, whole."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            torch.save(dict(content), file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def load_file(path: str | Path) -> dict[str, Any]:
    """Read a weight file on the CPU, without running any code in it.

    Raises CheckpointError for a file that is missing, damaged, or holds more than tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"no weight file {path}")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "GLOBAL" in str(error):  # a name to be imported and called
            raise CheckpointError(
                f"{path} holds Python objects besides tensors, which could run code when read: "
                "it is not loaded; save a plain state dict of tensors instead"
            ) from None
        raise _damaged(path) from None
    except (RuntimeError, OSError, EOFError, ValueError, KeyError):
        raise _damaged(path) from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, not a state dict")
    return content


def _damaged(path: Path) -> CheckpointError:
    size = path.stat().st_size
    return CheckpointError(
        f"{path} ({size} bytes) is not a readable weight file: truncated or damaged; copy it again"
    )


def state_dict_of(content: Mapping[str, Any], *, source: str) -> dict[str, Tensor]:
    """The state dict in a loaded file, bare or under 'state_dict', without `module.` prefixes."""
    state = content.get("state_dict", content)
    if not isinstance(state, Mapping) or not any(isinstance(v, Tensor) for v in state.values()):
        raise CheckpointError(
            f"{source} holds no state dict (keys: {', '.join(map(str, content))})"
        )
    return {
        name.removeprefix("module."): value
        for name, value in state.items()
        if isinstance(value, Tensor)
    }


def load_weights(
    model: nn.Module,
    state: Mapping[str, Tensor],
    *,
    source: str,
    may_miss: Callable[[str], bool] = lambda name: False,
) -> None:
    """Copy `state` into the model: all of it must fit, all of the model must be covered.

    `may_miss(name)` allows entries of the model to be absent from the file; counters of BatchNorm
    (`num_batches_tracked`) always may. Raises CheckpointError with a report, the model untouched.
    """
    own = model.state_dict()
    missing = [
        name
        for name in own
        if name not in state and not name.endswith("num_batches_tracked") and not may_miss(name)
    ]
    unexpected = [name for name in state if name not in own]
    misshapen = [
        f"{name} {tuple(state[name].shape)} in the file, {tuple(value.shape)} in the network"
        for name, value in own.items()
        if name in state and state[name].shape != value.shape
    ]
    parts = [
        _listed("missing in the file", missing),
        _listed("unknown to the network", unexpected),
        _listed("of another shape", misshapen),
    ]
    if any(parts):
        report = "; ".join(part for part in parts if part)
        raise CheckpointError(f"{source} does not fit this network: {report}")
    model.load_state_dict(dict(state), strict=False)  # what may be missing was checked above


def _listed(what: str, names: list[str]) -> str:
    if not names:
        return ""
    more = f", and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{len(names)} {what} ({', '.join(names[:_SHOWN])}{more})"
