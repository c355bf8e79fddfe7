"""Work on many items in processes, which end with the one that started them."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

import cv2
from tqdm import tqdm

from util.error import RunError

CHUNK = 8  # items that a process takes at a time
Given, Found = TypeVar("Given"), TypeVar("Found")


def in_processes(work: Callable[[Given], Found], items: Sequence[Given], what: str) -> list[Found]:
    """[work(item), ...] on all usable processors, with a progress bar on a terminal.

    `work` can be pickled. Raises what it raises, or RunError where a process was killed.
    """
    workers = min(usable_processors(), len(items) // CHUNK)
    options = {"total": len(items), "desc": what, "disable": None, "leave": False}
    if workers < 2:
        return [work(item) for item in tqdm(items, **options)]
    try:
        with ProcessPoolExecutor(workers, initializer=_start) as pool:
            return list(tqdm(pool.map(work, items, chunksize=CHUNK), **options))
    except BrokenProcessPool:
        raise RunError(
            f"a process ({what}) was killed, most likely because memory ran out: free some and "
            "run the command again"
        ) from None


def usable_processors() -> int:
    """How many this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _start() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the main process, which ends us
    cv2.setNumThreads(0)  # the processes run side by side
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
