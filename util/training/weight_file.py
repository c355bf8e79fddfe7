"""Weight files: atomic saving, safe loading (no code is run), strict matching to a network."""

import os
import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor, nn

from util.error import CheckpointError, is_out_of_memory
from util.training.weight_names import plain_names

UNFINISHED = ".tmp"  # suffix of files being written
_SHOWN = 5  # names listed per kind of mismatch
# Keys under which other projects store the state dict.
_WRAPPERS = (
    *("state_dict", "model_state_dict", "model_state", "model", "network", "net", "module"),
    *("ema", "model_ema", "ema_state_dict", "state_dict_ema"),
)
_STARTS = {
    b"<!doctype": "a web page, not a weight file: download the file again",
    b"<html": "a web page, not a weight file: download the file again",
    b"version https://git-lfs": "a Git LFS pointer, not the weights: run git lfs pull in its "
    "repository, or download the file itself",
    b"\x1f\x8b": "a gzip archive: unpack it and give the weight file inside",
}


def save_atomically(path: Path, content: Mapping[str, Any]) -> None:
    """Save to a temporary file, then rename: readers see either the old file or the new one.

    Raises OSError, naming the file, if it cannot be written.
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
        raise OSError(cause.errno, cause.strerror, str(path)) from None  # torch names no file
    finally:
        temporary.unlink(missing_ok=True)


def load_file(path: str | Path) -> dict[str, Any]:
    """Load a weight file on the CPU without running any code in it.

    Raises CheckpointError if it is missing, damaged or holds Python objects besides tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"no weight file {path}")
    with path.open("rb") as file:  # only once: a training may replace the file meanwhile
        if path.suffix == ".safetensors":
            return _load_safetensors(path, file)
        _check_kind(path, file)
        try:
            content = torch.load(file, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            if "GLOBAL" in str(error):  # the pickle imports and calls something
                raise CheckpointError(
                    f"{path} holds Python objects besides tensors, which could run code when "
                    "loaded: save a plain state dict of tensors instead"
                ) from None
            raise _damaged(path, file) from None
        except Exception as error:  # torch does, too
            if is_out_of_memory(error):
                raise
            raise _damaged(path, file) from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, not a state dict")
    return content


def _check_kind(path: Path, file: BinaryIO) -> None:
    """Raise CheckpointError, naming the format, if the file is not a PyTorch weight file."""
    file.seek(0)
    start = file.read(512).lstrip(b"\xef\xbb\xbf \r\n\t").lower()
    for beginning, what in _STARTS.items():
        if start.startswith(beginning):
            raise CheckpointError(f"{path} is {what}")
    try:
        names, is_damaged = _zip_content(file)
    except Exception:  # zipfile raises nearly everything for a damaged file
        raise _damaged(path, file) from None
    if names:
        if any(name.endswith("/constants.pkl") for name in names):
            raise CheckpointError(
                f"{path} is a TorchScript program, which runs code when loaded: if you trust it, "
                "save its weights with torch.save(torch.jit.load(FILE).state_dict(), NEW)"
            )
        if is_damaged:
            raise _damaged(path, file)
        if not any(name.endswith("data.pkl") for name in names):
            shown = ", ".join(names[:_SHOWN])[:200]
            raise CheckpointError(
                f"{path} is a zip archive ({shown}): unpack it and give the weight file inside"
            )
    file.seek(0)


def _zip_content(file: BinaryIO) -> tuple[list[str], bool]:
    """Names in a zip archive, [] for another file, and whether a checksum is wrong, which
    torch.load ignores."""
    if not zipfile.is_zipfile(file):
        return [], False
    with zipfile.ZipFile(file) as archive:
        return archive.namelist(), archive.testzip() is not None


def _load_safetensors(path: Path, file: BinaryIO) -> dict[str, Any]:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load
    except ImportError:
        _check_kind(path, file)
        raise CheckpointError(f"{path} is in safetensors format: pip install safetensors") from None
    try:
        return load(file.read())
    except (SafetensorError, ValueError, KeyError):
        _check_kind(path, file)
        raise _damaged(path, file) from None


def _damaged(path: Path, file: BinaryIO) -> CheckpointError:
    size = os.fstat(file.fileno()).st_size
    return CheckpointError(
        f"{path} ({size} bytes) is not a readable weight file: truncated or damaged; copy it again"
    )


def state_dict_of(content: Mapping[str, Any], *, source: str) -> dict[str, Tensor]:
    """Extract the state dict from the content of a weight file and strip prefixes from its names.

    Unwraps {'state_dict': ...}, {'model': ...} and the like, also nested; strips the prefixes of
    `plain_names`; uses averaged (EMA) weights only if there are no others. Raises CheckpointError
    unless all entries are dense, finite tensors.
    """
    found = content
    while inner := [found[key] for key in _WRAPPERS if isinstance(found.get(key), Mapping)]:
        found = inner[0]
    state = {name: value for name, value in found.items() if isinstance(value, Tensor)}
    state.pop("n_averaged", None)  # of torch.optim.swa_utils.AveragedModel
    if not state or not all(isinstance(name, str) for name in state):
        shown = ", ".join(map(str, list(content)[:_SHOWN]))[:200]
        raise CheckpointError(f"{source} holds no state dict (keys: {shown})")
    _check_values(state, source)
    return plain_names(state, source=source)


def nonfinite_entries(state: Mapping[str, Tensor]) -> list[str]:
    """Return the names of tensors with values that are infinite or NaN in float32."""
    return [
        name
        for name, value in state.items()
        if value.is_floating_point() and not value.float().isfinite().all()
    ]


def _check_values(state: Mapping[str, Tensor], source: str) -> None:
    odd = [
        name
        for name, value in state.items()
        if value.layout != torch.strided or value.is_quantized or value.is_meta
    ]
    if odd:
        raise CheckpointError(
            f"{source}: {_listed('sparse, quantised or without values', odd)}: save plain tensors"
        )
    if nonfinite := nonfinite_entries(state):
        raise CheckpointError(
            f"{source}: {_listed('with infinite or NaN values', nonfinite)}: the training that "
            "wrote it had diverged; use an earlier checkpoint"
        )


def load_weights(
    model: nn.Module,
    state: Mapping[str, Tensor],
    *,
    source: str,
    may_miss: Callable[[str], bool] = lambda name: False,
) -> None:
    """Load `state` into the model, strictly.

    Entries for which `may_miss(name)` is true and BatchNorm's `num_batches_tracked` may be absent.
    Raises CheckpointError, leaving the model unchanged, if anything else does not match.
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
    mistyped = [
        f"{name} {state[name].dtype}".replace("torch.", "")
        for name, value in own.items()
        if name in state
        and state[name].is_floating_point() != value.is_floating_point()
        and not name.endswith("num_batches_tracked")
    ]
    parts = [
        _listed("missing in the file", missing),
        _listed("unknown to the network", unexpected),
        _listed("of another shape", misshapen),
        _listed("of another type", mistyped),
    ]
    if any(parts):
        report = "; ".join(part for part in parts if part)
        raise CheckpointError(f"{source} does not fit this network: {report}")
    model.load_state_dict(dict(state), strict=False)  # missing entries were checked above


def _listed(what: str, names: list[str]) -> str:
    if not names:
        return ""
    more = f", and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{len(names)} {what} ({', '.join(names[:_SHOWN])}{more})"
