"""Start and end the worker processes of a loader, on any operating system."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.synchronize import Semaphore

import cv2


@contextmanager
def signals_held() -> Iterator[None]:
    """Block signals while worker processes start, since these cannot ignore them yet."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _signals())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def start_worker(may_end: Semaphore, worker: int) -> None:
    """Initialise a worker: ignore signals and wait for `release` in the background.

    Schedulers and terminals signal all processes, but the main process needs its workers alive
    while it saves. If it dies, they end as well.
    """
    for number in _signals():
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(may_end,), daemon=True).start()
    cv2.setNumThreads(0)  # workers already run in parallel: more threads would compete for cores


def _end_with(may_end: Semaphore) -> None:
    may_end.acquire()
    os._exit(0)


def release(may_end: Semaphore, workers: int) -> None:
    """End the workers at once."""
    for _ in range(workers):
        may_end.release()


def _signals() -> list[signal.Signals]:
    names = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")
    return [getattr(signal, name) for name in names if hasattr(signal, name)]
