"""Weight files: atomic saving, safe loading, and a strict fit with a readable report."""

import os
import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from util.error import CheckpointError

UNFINISHED = ".tmp"  # ends the names of files that are being written
_SHOWN = 5  # names listed per kind of misfit


def save_atomically(path: Path, content: Mapping[str, Any]) -> None:
    """torch.save to a temporary file, then rename: readers see the old file or the new, whole.

    Raises CheckpointError where the disk is full or does not take it.
    """
    temporary = path.with_name(f"{path.name}{UNFINISHED}")
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
