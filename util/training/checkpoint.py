"""The checkpoints of a run: file names, which one to resume from, and how many to keep."""

import logging
import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from util.error import CheckpointError, ConfigError
from util.training.weight_file import UNFINISHED, load_file, save_atomically

log = logging.getLogger("semseg")

KEEP = 2  # the newest, and its predecessor in case the newest is damaged
BEST = "best.pth"


class Checkpoint(NamedTuple):
    """A checkpoint file and its content."""

    path: str
    content: dict[str, Any]


def checkpoint_name(epoch: int, step_in_epoch: int = 0) -> str:
    """File name of a checkpoint saved after `epoch` epochs and `step_in_epoch` further steps."""
    return f"train_epoch_{epoch}{f'_step_{step_in_epoch}' if step_in_epoch else ''}.pth"


def position_of(path: str | Path) -> tuple[int, int] | None:
    """Parse a file name: `train_epoch_7_step_90.pth` -> (7, 90); None if it is no checkpoint."""
    match = re.fullmatch(r"train_epoch_(\d+)(?:_step_(\d+))?\.pth", Path(path).name)
    return (int(match[1]), int(match[2] or 0)) if match else None


def checkpoints(folder: str | Path) -> list[Path]:
    """List the checkpoints in a folder, most advanced first."""
    found = [path for path in Path(folder).glob("train_epoch_*.pth") if position_of(path)]
    return sorted(found, key=_position, reverse=True)


def find_checkpoint(model_path: str, save_path: str) -> str:
    """Return TEST.model_path or, if it is empty, the newest checkpoint in TRAIN.save_path."""
    if model_path:
        return model_path
    found = checkpoints(save_path) if save_path else []
    if not found:
        raise CheckpointError(
            f"TEST.model_path is empty and TRAIN.save_path '{save_path}' holds no "
            "train_epoch_<N>.pth: train first (sh tool/train.sh), or name a file in TEST.model_path"
        )
    return str(found[0])


def find_resume(resume: str, save_path: str) -> Checkpoint | None:
    """Load the checkpoint selected by TRAIN.resume; None for a new run.

    `auto` selects the most advanced readable checkpoint in save_path, best.pth if there is no
    other; damaged ones are skipped with a warning. A requeued SLURM job continues as with `auto`
    once it has saved. Raises ConfigError if the run would overwrite checkpoints of another run.
    """
    found = checkpoints(save_path)
    own = found or [path for path in [Path(save_path) / BEST] if path.is_file()]
    is_requeued = os.environ.get("SLURM_RESTART_COUNT", "0") != "0"
    if resume == "auto" or (is_requeued and own):
        return _newest(own, save_path) if own else None
    if resume:
        checkpoint = Checkpoint(resume, load_file(resume))
        _check_ahead(checkpoint, found, save_path)
        return checkpoint
    if own:
        raise ConfigError(
            f"TRAIN.save_path already holds {own[0]}: continue from it with TRAIN.resume auto, "
            "or start again with another TRAIN.save_path or after removing that folder"
        )
    return None


def _newest(found: list[Path], save_path: str) -> Checkpoint:
    for path in found:
        try:
            return Checkpoint(str(path), load_file(path))
        except CheckpointError as error:
            log.warning(f"{error}; using the previous checkpoint")
    raise CheckpointError(
        f"none of the {len(found)} checkpoints in {save_path} can be read: remove them to start "
        "again"
    )


def _check_ahead(checkpoint: Checkpoint, found: list[Path], save_path: str) -> None:
    """Raise ConfigError if the resumed run would overwrite checkpoints in save_path."""
    path, content = checkpoint
    epoch, step = content.get("epoch"), content.get("step_in_epoch", 0)
    if not isinstance(epoch, int) or not isinstance(step, int):
        return  # check_numbers reports this
    later = [other for other in found if _position(other) >= (epoch, step)]
    ahead = [other for other in later if not other.samefile(path)]
    if not ahead and not is_in(path, save_path) and (best := Path(save_path) / BEST).exists():
        ahead = [best]
    if ahead:
        raise ConfigError(
            f"TRAIN.resume {path} is of epoch {epoch}, but TRAIN.save_path already holds "
            f"{ahead[0]}, which the run would overwrite: choose another TRAIN.save_path, or "
            "continue from the newest checkpoint there with TRAIN.resume auto"
        )


def is_in(path: str, folder: str) -> bool:
    """Whether a file is directly in this folder."""
    return Path(path).resolve().parent == Path(folder).resolve()


def save_checkpoint(
    folder: str | Path,
    content: Mapping[str, Any],
    *,
    is_due: bool = True,
    is_best: bool = False,
    foreign: Collection[Path] = (),
) -> list[Path]:
    """Write best.pth if `is_best`, then the regular checkpoint if `is_due`.

    The order matters: a run killed between the two writes both again after resuming. Checkpoints
    older than the last KEEP are deleted, except those in `foreign`. Returns the paths written.
    """
    folder, written = Path(folder), []
    if is_best:
        written.append(folder / BEST)
    if is_due:
        written.append(folder / checkpoint_name(content["epoch"], content.get("step_in_epoch", 0)))
    for path in written:
        save_atomically(path, content)
    if is_due:
        for old in _older_than(written[-1])[KEEP - 1 :]:
            if old not in foreign:
                old.unlink()
    return written


def remove_unfinished(folder: str | Path) -> None:
    """Remove temporary files left behind by a run that was killed while saving."""
    for path in Path(folder).glob(f"*.pth{UNFINISHED}"):
        name = path.name.removesuffix(UNFINISHED)
        if (name == BEST or position_of(name)) and path.is_file():
            path.unlink()


def _older_than(path: Path) -> list[Path]:
    return [other for other in checkpoints(path.parent) if _position(other) < _position(path)]


def _position(path: Path) -> tuple[int, int]:
    position = position_of(path)
    assert position is not None
    return position
