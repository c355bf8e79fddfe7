"""The checkpoints of a run: their names, which one to continue from, and how many are kept."""

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from util.error import CheckpointError, ConfigError
from util.training.weight_file import UNFINISHED, load_file, save_atomically

log = logging.getLogger("semseg")

KEEP = 2  # the newest, and one before it to fall back on


class Checkpoint(NamedTuple):
    """A file and what it holds."""

    path: str
    content: dict[str, Any]


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


def find_resume(resume: str, save_path: str) -> Checkpoint | None:
    """The file that TRAIN.resume means; None for a new run.

    `auto` is the most advanced file of save_path that can be read; a damaged one is logged and
    skipped. Raises ConfigError where a new run would overwrite an earlier one.
    """
    found = checkpoints(save_path)
    if resume != "auto":
        if found and not resume:
            raise ConfigError(
                f"TRAIN.save_path already holds {found[0]}: continue from it with TRAIN.resume "
                "auto, or start again with another TRAIN.save_path or after removing that folder"
            )
        return Checkpoint(resume, load_file(resume)) if resume else None
    for path in found:
        try:
            return Checkpoint(str(path), load_file(path))
        except CheckpointError as error:
            log.warning(f"{error}; using the checkpoint before it")
    if found:
        raise CheckpointError(
            f"none of the {len(found)} checkpoints in {save_path} can be read: remove them to "
            "start again"
        )
    return None


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
    for leftover in Path(folder).glob(f"*{UNFINISHED}"):  # of a run that was killed while saving
        leftover.unlink()
    for old in checkpoints(folder)[KEEP:]:
        old.unlink()
    return written
