"""The folder of a run: locked by one training at a time, never overwriting the user's files."""

import json
import logging
import os
import platform
import sys
from datetime import datetime
from pathlib import Path
from typing import IO

from util.error import ConfigError
from util.training.checkpoint import BEST, checkpoints, remove_unfinished

try:
    import fcntl
except ImportError:  # Windows
    import msvcrt

log = logging.getLogger("semseg")

LOCK = ".training.lock"
_HOLDER = "process "  # how its text begins
_LOCKED = 2**30  # the byte that is locked on Windows, far behind the text
FILES = ("config.yaml", "environment.json", "git.diff", "metrics.jsonl")


class RunFolder:
    """Context manager that locks TRAIN.save_path; does nothing if not `active` (other ranks).

    The operating system releases the lock if the process dies. Raises ConfigError if another
    training uses the folder, or if it holds files that no training wrote.
    """

    def __init__(self, path: str, *, active: bool) -> None:
        self.path, self._active = Path(path), active
        self._lock: IO[str] | None = None

    def __enter__(self) -> "RunFolder":
        if self._active:
            self.path.mkdir(parents=True, exist_ok=True)
            self._check_files()
            self._lock = self._acquire_lock()
            remove_unfinished(self.path)
        return self

    def __exit__(self, *error: object) -> None:
        if self._lock:
            self._lock.close()

    def _check_files(self) -> None:
        if _is_lock(self.path / LOCK) or _is_environment_file(self.path / "environment.json"):
            return
        names = [LOCK, *FILES, *([] if checkpoints(self.path) else [BEST])]
        if found := [name for name in names if os.path.lexists(self.path / name)]:
            raise ConfigError(
                f"TRAIN.save_path {self.path} holds {', '.join(found)}, which no training wrote "
                "and this one would overwrite: choose another TRAIN.save_path, or move them"
            )

    def _acquire_lock(self) -> IO[str]:
        file = (self.path / LOCK).open("a+", encoding="utf-8")
        try:
            _lock(file)
        except (BlockingIOError, PermissionError):
            file.seek(0)
            holder = file.read(200).strip() or "unknown"
            file.close()
            raise ConfigError(
                f"TRAIN.save_path {self.path} is in use by another training ({holder}): wait until "
                "it ends, or choose another TRAIN.save_path"
            ) from None
        except OSError as error:  # a file system without locks
            log.warning(
                f"{self.path} cannot be locked ({error.strerror}): run only one training in it"
            )
        file.truncate(0)
        now = datetime.now().isoformat(timespec="seconds")
        file.write(f"{_HOLDER}{os.getpid()} on {platform.node()}, since {now}\n")
        file.flush()
        return file


def _lock(file: IO[str]) -> None:
    """Lock a file for this process; flock would share the lock with forked loader workers."""
    if sys.platform == "win32":
        file.seek(_LOCKED)  # others cannot read what is locked
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _is_lock(path: Path) -> bool:
    """Whether this is the lock file of a training; it may be empty after a kill."""
    try:
        text = path.read_text(encoding="utf-8") if path.is_file() else "none"
    except (OSError, ValueError):
        return False
    return not text or text.startswith(_HOLDER)


def _is_environment_file(path: Path) -> bool:
    """Whether a training wrote this environment.json."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and {"command", "torch", "git_commit"} <= content.keys()
