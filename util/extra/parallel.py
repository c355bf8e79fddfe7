"""Processing many files in parallel."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from tqdm import tqdm

Given = TypeVar("Given")
Found = TypeVar("Found")


def available_cores() -> int:
    """Return the number of cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def in_threads(work: Callable[[Given], Found], items: Sequence[Given], what: str) -> list[Found]:
    """Return [work(item) for item in items], with a progress bar on a terminal.

    Raises what `work` raises. Threads suffice: decoders, OpenCV and hashes release the GIL.
    """
    with ThreadPoolExecutor() as pool:
        futures = [pool.submit(work, item) for item in items]
        try:
            return [f.result() for f in tqdm(futures, desc=what, disable=None, leave=False)]
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
