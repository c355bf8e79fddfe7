"""Where results may go: into a folder that can be made, and never over a file of the user's."""

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from util.data.file import unfinished
from util.error import ConfigError


def make_folder(path: Path, *, key: str) -> None:
    """Make a folder and those above it. Raises ConfigError, naming `key`, where that cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = "it is not a folder" if isinstance(error, FileExistsError) else error.strerror
        raise ConfigError(
            f"{key}: cannot make the folder {path} ({reason}): choose another"
        ) from None


def check_file(
    path: Path,
    *,
    key: str,
    is_ours: Callable[[Path], bool] | None = None,
    fix: str = "remove it or choose another name",
) -> None:
    """Make the folder of a file that is to be written. Raises ConfigError, naming `key`, where it
    cannot be written, or where there is something that is not ours (None: anything)."""
    make_folder(path.parent, key=key)
    if os.path.lexists(path) and not path.is_file():
        raise ConfigError(f"{key}: {path} exists and is not a file: choose another name")
    is_there = False
    try:
        with unfinished(path) as temporary:
            temporary.touch()
        with suppress(FileNotFoundError):  # not of a name that is too long
            is_there = bool(os.lstat(path))
    except OSError as error:
        raise ConfigError(
            f"{key}: cannot write {path} ({error.strerror}): choose another name"
        ) from None
    if is_there and not (is_ours and is_ours(path)):
        foreign = " and is no result of an earlier run" if is_ours else ""
        raise ConfigError(f"{key}: {path} exists{foreign}: {fix}")


def check_targets(
    targets: Sequence[Path],
    *,
    inputs: Iterable[Path],
    is_ours: Callable[[Path], bool],
    key: str,
) -> None:
    """Raise ConfigError, naming `key`, where a target is one of the inputs or not ours."""
    existing = [path for path in targets if os.path.lexists(path)]
    read = {os.path.realpath(path) for path in inputs} if existing else set()
    folders = {folder: os.path.realpath(folder) for folder in {p.parent for p in existing}}
    for path in existing:
        if os.path.join(folders[path.parent], path.name) in read:
            raise ConfigError(
                f"{key}: {path} is one of the files that are read and would be overwritten: "
                "choose another folder"
            )
        if not is_ours(path):
            raise ConfigError(
                f"{key}: {path} exists and is no result of an earlier run, so it is not "
                "overwritten: choose another folder"
            )
