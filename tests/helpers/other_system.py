"""Run a tool as if Python had not what a system lacks.

python tests/helpers/other_system.py macos|windows tool/train.py --config FILE ...

This file is the main module, so loader workers start with it, too.
"""

import multiprocessing
import os
import runpy
import signal
import sys
from multiprocessing import resource_tracker
from pathlib import Path
from types import SimpleNamespace

MISSING = {
    "macos": {os: ("sched_getaffinity",), signal: ("sigwaitinfo", "sigtimedwait")},
    "windows": {
        os: (
            *("fork", "forkpty", "sched_getaffinity", "getloadavg", "statvfs", "killpg", "getpgid"),
            *("setsid", "mkfifo", "getuid", "geteuid", "wait", "nice", "sysconf"),
        ),
        signal: (
            *("SIGUSR1", "SIGUSR2", "SIGHUP", "SIGKILL", "SIGALRM", "sigwait", "sigwaitinfo"),
            *("sigtimedwait", "sigpending", "pthread_kill", "alarm", "setitimer"),
        ),
    },
}


class _Msvcrt:
    LK_NBLCK = 2

    @staticmethod
    def locking(file: int, mode: int, size: int) -> None:
        assert os.lseek(file, 0, os.SEEK_CUR) > 0  # others must be able to read the text


def become(system: str) -> None:
    """Take away what the system does not have."""
    for module, names in MISSING[system].items():
        for name in names:
            delattr(module, name)
    if system == "windows":
        from util.training import run_folder

        run_folder.sys, run_folder.msvcrt = SimpleNamespace(platform="win32"), _Msvcrt
        del run_folder.fcntl
        sys.modules |= dict.fromkeys(("fcntl", "resource", "pwd", "grp", "termios"))


sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))
become(sys.argv[1])
if __name__ == "__main__":
    if sys.argv[1] == "windows":
        del signal.pthread_sigmask
        resource_tracker._HAVE_SIGMASK = False  # as where it never was
    multiprocessing.set_start_method("spawn")
    del sys.argv[:2]
    runpy.run_path(sys.argv[0], run_name="__main__")
