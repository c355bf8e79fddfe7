"""What a user did wrong, in a sentence; and the border where it becomes exit code 2."""

import errno
import os
import sys
from collections.abc import Callable
from difflib import get_close_matches

EXIT_USER_ERROR = 2
EXIT_STOPPED = 75  # EX_TEMPFAIL: asked to end by a signal, saved; the same command goes on
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells count

# System errors that are about the user's machine (paths, rights, space), never about our code.
_MACHINE_ERRORS = {
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOSPC,
    errno.EDQUOT,
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ENAMETOOLONG,
}


class UserError(Exception):
    """A mistake that the user can cure. The message is one sentence with the value and the cure."""


class ConfigError(UserError):
    """A key, a value or a combination of values that cannot work."""


class DataError(UserError):
    """A list file, image or label that is missing, unreadable or not what the config says."""


class CheckpointError(UserError):
    """A weight file that is missing, damaged or of another network."""


class RunError(UserError):
    """A run that cannot go on: it diverged, ran out of memory or lost a process."""


def nearest(word: str, known: list[str], *, count: int = 1) -> list[str]:
    """The known words most like `word`, best first; empty when none is near."""
    by_lower_case = {name.lower(): name for name in known}
    return [by_lower_case[m] for m in get_close_matches(word.lower(), by_lower_case, count, 0.6)]


def run_cli(main: Callable[[], None]) -> None:
    """Run a tool's main(). A user's mistake ends as one line on stderr and exit code 2.

    Programmers' mistakes keep their traceback.
    """
    try:
        main()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:  # the reader of our output (head, less) has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        sentence = user_message(error)
        if sentence is None:
            raise
        _leave(sentence)


def user_message(error: BaseException) -> str | None:
    """The sentence for an error of the user or the machine, None for a programmer's error."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError) and error.errno in _MACHINE_ERRORS and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return None


def _leave(sentence: str) -> None:
    print(f"error: {sentence}", file=sys.stderr)
    sys.exit(EXIT_USER_ERROR)
