"""Checks on output paths: folders can be created, and no file of the user is overwritten."""

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from util.data.file import unfinished
from util.error import ConfigError


def make_folder(path: Path, *, key: str) -> None:
    """Create a folder and its parents. Raises ConfigError, naming `key`, on failure."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = "it is not a folder" if isinstance(error, FileExistsError) else error.strerror
        raise ConfigError(
            f"{key}: cannot create the folder {path} ({reason}): choose another"
        ) from None


def check_file(
    path: Path,
    *,
    key: str,
    is_ours: Callable[[Path], bool] | None = None,
    fix: str = "remove it or choose another name",
) -> None:
    """Create the folder of an output file and check that the file can be written.

    Raises ConfigError, naming `key`, if it cannot, or if it exists and is not ours (None: exists).
    """
    make_folder(path.parent, key=key)
    if os.path.lexists(path) and not path.is_file():
        raise ConfigError(f"{key}: {path} exists and is not a file: choose another name")
    is_there = False
    try:
        with unfinished(path) as temporary:
            temporary.touch()
        with suppress(FileNotFoundError):  # if the name is too long
            is_there = bool(os.lstat(path))
    except OSError as error:
        raise ConfigError(
            f"{key}: cannot write {path} ({error.strerror}): choose another name"
        ) from None
    if is_there and not (is_ours and is_ours(path)):
        foreign = " and is not a result of an earlier run" if is_ours else ""
        raise ConfigError(f"{key}: {path} exists{foreign}: {fix}")


def check_targets(
    targets: Sequence[Path],
    *,
    inputs: Iterable[Path],
    is_ours: Callable[[Path], bool],
    key: str,
) -> None:
    """Raise ConfigError, naming `key`, if a target is an input or was not written by us."""
    existing = [path for path in targets if os.path.lexists(path)]
    read = {os.path.realpath(path) for path in inputs} if existing else set()
    folders = {folder: os.path.realpath(folder) for folder in {p.parent for p in existing}}
    for path in existing:
        if os.path.join(folders[path.parent], path.name) in read:
            raise ConfigError(
                f"{key}: {path} is one of the input files and would be overwritten: choose another "
                "folder"
            )
        if not is_ours(path):
            raise ConfigError(
                f"{key}: {path} exists and is not a result of an earlier run, so it is not "
                "overwritten: choose another folder"
            )
