"""Worker processes of a loader: how they start, on any system, and how they end."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.synchronize import Semaphore

import cv2


@contextmanager
def signals_held() -> Iterator[None]:
    """Signals wait while processes start, which are not ready to ignore them."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _signals())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def start_worker(may_end: Semaphore, worker: int) -> None:
    """Make a worker deaf to signals of a scheduler or a terminal, which go to all processes: the
    main one saves, with its workers alive. They end by `release`, or when it has died."""
    for number in _signals():
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(may_end,), daemon=True).start()
    cv2.setNumThreads(0)  # workers run side by side: threads inside each get in the others' way


def _end_with(may_end: Semaphore) -> None:
    may_end.acquire()
    os._exit(0)


def release(may_end: Semaphore, workers: int) -> None:
    """Let workers end at once."""
    for _ in range(workers):
        may_end.release()


def _signals() -> list[signal.Signals]:
    names = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")
    return [getattr(signal, name) for name in names if hasattr(signal, name)]
