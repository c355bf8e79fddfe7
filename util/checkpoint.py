"""Weight files: atomic saving, safe loading, and a strict fit with a readable report."""

import os
import pickle
import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from util.error import CheckpointError, ConfigError

KEEP = 2  # the newest, and one before it to fall back on
_UNFINISHED = ".tmp"  # ends the names of files that are being written
_SHOWN = 5  # names listed per kind of misfit


def checkpoint_name(epoch: int, step_in_epoch: int = 0) -> str:
    """File name of the state after `epoch` epochs and some steps of the next one."""
    return f"train_epoch_{epoch}{f'_step_{step_in_epoch}' if step_in_epoch else ''}.pth"


def position_of(path: str | Path) -> tuple[int, int] | None:
    """`train_epoch_7.pth` -> (7, 0), `train_epoch_7_step_90.pth` -> (7, 90); else None."""
    match = re.fullmatch(r"train_epoch_(\d+)(?:_step_(\d+))?\.pth", Path(path).name)
    return (int(match[1]), int(match[2] or 0)) if match else None


def checkpoints(folder: str | Path) -> list[Path]:
    """The checkpoints of a folder, most advanced first."""
    found = [(position_of(path), path) for path in Path(folder).glob("train_epoch_*.pth")]
    return [path for position, path in sorted(found, reverse=True) if position is not None]


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


def find_resume(
    resume: str, save_path: str, *, say: Callable[[str], None]
) -> tuple[str, dict[str, Any]]:
    """The file that TRAIN.resume means and its content; ('', {}) for a new run.

    `auto` is the most advanced file of save_path that can be read; a damaged one is said and
    passed over. Raises ConfigError where a new run would overwrite an earlier one.
    """
    found = checkpoints(save_path)
    if resume != "auto":
        if found and not resume:
            raise ConfigError(
                f"TRAIN.save_path already holds {found[0]}: go on from it with TRAIN.resume auto, "
                "or start anew with another TRAIN.save_path or after removing that folder"
            )
        return resume, load_file(resume) if resume else {}
    for path in found:
        try:
            return str(path), load_file(path)
        except CheckpointError as error:
            say(f"{error}; trying the one before")
    if found:
        raise CheckpointError(
            f"none of the {len(found)} checkpoints in {save_path} can be read: remove them to "
            "start anew"
        )
    return "", {}


def save_checkpoint(
    folder: str | Path, content: Mapping[str, Any], *, is_due: bool = True, is_best: bool = False
) -> list[Path]:
    """Write the file of content's `epoch` and `step_in_epoch` if due, and best.pth if best.

    Only the most advanced files are kept. Returns what was written.
    """
    written = []
    if is_due:
        name = checkpoint_name(content["epoch"], content.get("step_in_epoch", 0))
        written.append(Path(folder) / name)
    if is_best:
        written.append(Path(folder) / "best.pth")
    for path in written:
        save_atomically(path, content)
    for leftover in Path(folder).glob(f"*{_UNFINISHED}"):  # of a run that was killed while saving
        leftover.unlink()
    for old in checkpoints(folder)[KEEP:]:
        old.unlink()
    return written


def save_atomically(path: Path, content: Mapping[str, Any]) -> None:
    """torch.save to a temporary file, then rename: readers see the old file or the new, whole.

    Raises CheckpointError where the disk is full or does not take it.
    """
    temporary = path.with_name(f"{path.name}{_UNFINISHED}")
    try:
        with temporary.open("wb") as file:
            torch.save(dict(content), file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, RuntimeError) as error:
        cause = error if isinstance(error, OSError) else error.__context__
        if not isinstance(cause, OSError):
            raise
        raise CheckpointError(
            f"{path} cannot be written: {cause.strerror}; checkpoints saved before are whole: make "
            "room, then TRAIN.resume auto goes on"
        ) from None
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
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if archive.testzip() is not None:  # torch.load does not look at the checksums
                    raise _damaged(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "GLOBAL" in str(error):  # a name to be imported and called
            raise CheckpointError(
                f"{path} holds Python objects besides tensors, which could run code when read: "
                "it is not loaded; save a plain state dict of tensors instead"
            ) from None
        raise _damaged(path) from None
    except (RuntimeError, OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
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
