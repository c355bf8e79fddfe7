"""Errors for users' mistakes, and `run_cli`, which prints them as one line and exits with 2."""

import atexit
import contextlib
import errno
import importlib.util
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Any

EXIT_USER_ERROR = 2
EXIT_STOPPED = 75  # EX_TEMPFAIL: stopped by a signal after saving; run the same command again
EXIT_INTERRUPTED = 130  # 128 + SIGINT, the shells' convention

# Sent by schedulers and terminals to stop a program; Windows has only SIGTERM.
STOP_SIGNALS = [getattr(signal, n) for n in ("SIGTERM", "SIGHUP", "SIGUSR1") if hasattr(signal, n)]

MAX_SENTENCE = 4000  # characters of an error message on the terminal
PACKAGES = ("torch", "numpy", "cv2", "PIL", "yaml", "scipy", "jinja2", "tensorboardX", "tqdm")

# The usual fix for a system error.
_FIXES = {
    errno.ENOSPC: "free some space or choose another folder",
    errno.EDQUOT: "free some space or choose another folder",
    errno.EFBIG: "raise the limit on file sizes (ulimit -f) or choose another folder",
    errno.EROFS: "choose a folder that can be written to",
    errno.EACCES: "check its permissions or choose another path",
    errno.EPERM: "check its permissions or choose another path",
    errno.EEXIST: "choose another path",
    errno.EISDIR: "choose another path",
    errno.ENOTDIR: "choose another path",
    errno.ELOOP: "choose another path",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EMFILE: "raise the limit on open files (ulimit -n)",
    errno.EAGAIN: "raise the limit on processes (ulimit -u) or start fewer",
}
_BUGS = (None, errno.EBADF, errno.EFAULT, errno.EINVAL, errno.ECHILD)  # keep their traceback
_NO_MEMORY = (
    "can't allocate memory",
    "not enough memory",
    "CUDA out of memory",
    "Insufficient memory",
    "Storage size calculation overflowed",
)


class UserError(Exception):
    """A mistake the user can fix. The message is one sentence with the value and the fix."""


class ConfigError(UserError):
    """An invalid key, value or combination of values."""


class DataError(UserError):
    """A list, image or label that is missing, unreadable or contradicts the config."""


class CheckpointError(UserError):
    """A weight file that is missing, damaged or does not fit the network."""


class RunError(UserError):
    """A run that cannot continue: it diverged, ran out of memory or lost a process."""


# Parts of messages --------------------------------------------------------------------------------


def nearest(word: str, known: list[str], *, count: int = 1, cutoff: float = 0.6) -> list[str]:
    """Return the known words most similar to `word`, best first; empty if none is close."""
    by_lower_case = {name.lower(): name for name in known}
    word = word[:100].lower()
    return [by_lower_case[m] for m in get_close_matches(word, by_lower_case, count, cutoff)]


def show(value: object, *, limit: int = 200) -> str:
    """Format a value for a message: one line, control characters escaped, cut after `limit`."""
    text = str(value)
    more = f"... ({len(text)} characters)" if len(text) > limit else ""
    return "".join(c if c.isprintable() else _escape(c) for c in text[:limit]) + more


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


# Reading users' files -----------------------------------------------------------------------------


def read_text(path: str | Path, kind: type[UserError]) -> str:
    """Read a UTF-8 file, with or without a byte order mark. Raises `kind` if it cannot be read."""
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise kind(
            f"{path} is not UTF-8 text (byte 0x{byte:02x} at offset {error.start}): save it as "
            "UTF-8"
        ) from None


def read_json(path: str | Path, kind: type[UserError]) -> Any:
    """Read a JSON file. Raises `kind` if it is not valid JSON."""
    try:
        return json.loads(read_text(path, kind))
    except (ValueError, RecursionError) as error:
        raise kind(f"{path} is not valid JSON ({show(error)})") from None


# Running a tool -----------------------------------------------------------------------------------


def run_cli(main: Callable[[], None]) -> None:
    """Run a tool's main(); print a user's mistake as one line on stderr and exit with code 2.

    System errors (disk full, no permission, out of memory) are treated the same way; bugs keep
    their traceback. SIGTERM and the like exit at once, unless a StopRequest saves first.
    """
    for stream in (sys.stdout, sys.stderr):  # a name may have characters the terminal cannot encode
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    before = set_handler(_raise_stopped)
    set_handler(signal.default_int_handler, [signal.SIGINT])
    try:
        main()
        sys.stdout.flush()
    except Stopped as stop:
        print(f"stopped by {stop.name}", file=sys.stderr)
        raise
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)
    except Exception as error:
        sentence = user_message(error)
        if sentence is None:
            raise
        leave(sentence)
    finally:
        restore_handlers(before)


def leave(sentence: str) -> None:
    """Exit with one line on stderr and exit code 2."""
    try:
        sys.stdout.flush()
    except OSError:  # do not try to write it again at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    with contextlib.suppress(OSError):
        print(f"error: {show(sentence, limit=MAX_SENTENCE)}", file=sys.stderr)
    sys.exit(EXIT_USER_ERROR)


def user_message(error: BaseException) -> str | None:
    """Return the message for a user's or a system error, None for a bug."""
    if isinstance(error, UserError):
        return str(error)
    if is_out_of_memory(error):
        return f"out of memory: {(str(error).strip() or 'no details').splitlines()[0]}"
    if isinstance(error, OSError) and (error.errno not in _BUGS or error.filename is not None):
        parts = [error.filename, error.filename2, error.strerror, fix_of(error)]
        return ": ".join(str(part) for part in parts if part)
    return None


def fix_of(error: OSError) -> str:
    """Return the usual fix for a system error, '' if there is none."""
    return _FIXES.get(error.errno or 0, "")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether Python, NumPy, OpenCV or torch ran out of memory."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, Exception) and any(words in str(error) for words in _NO_MEMORY)


# Signals ------------------------------------------------------------------------------------------


class Stopped(SystemExit):
    """Stopped by a signal with nothing to save."""

    def __init__(self, name: str) -> None:
        super().__init__(EXIT_STOPPED)
        self.name = name


def set_handler(handler: Callable | int, signals: Iterable[int] = STOP_SIGNALS) -> dict:
    """Install a handler for signals that are not ignored (nohup); return the old handlers."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    numbers = [n for n in signals if signal.getsignal(n) is not signal.SIG_IGN]
    return {number: signal.signal(number, handler) for number in numbers}


def restore_handlers(before: dict) -> None:
    """Undo set_handler."""
    for number, handler in before.items():
        signal.signal(number, handler)


def _raise_stopped(number: int, frame: object) -> None:
    set_handler(signal.SIG_IGN)  # a second signal must not interrupt the exit
    raise Stopped(signal.Signals(number).name)


# Start-up -----------------------------------------------------------------------------------------


def _start_tool() -> None:
    """Report missing packages before anything imports them: tools import this module first."""
    root = Path(__file__).resolve().parents[1]
    if Path(sys.argv[0]).resolve().parent != root / "tool":
        return
    set_handler(lambda *_: os._exit(EXIT_STOPPED))  # until run_cli takes over
    atexit.register(set_handler, signal.SIG_IGN)  # Python's own end resets other handlers
    set_handler(lambda *_: os._exit(EXIT_INTERRUPTED), [signal.SIGINT])
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        leave(
            f"{sys.executable} lacks {', '.join(missing)}: activate an environment with "
            "requirements.txt installed (. .venv/bin/activate); sh tool/quickstart.sh creates one"
        )


_start_tool()
