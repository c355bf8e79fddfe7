"""Threads beside the network: files are read ahead of it and written behind it, in bounded number.

Threads are enough: decoders, encoders and NumPy let go of Python's lock while they work.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

Item, Result = TypeVar("Item"), TypeVar("Result")


class Threads:
    """A few threads with a short queue, so that memory does not grow with what is waiting.

    An error of the work is raised in the caller, at its next call or on leaving the context. On
    leaving with an error what has not begun is dropped: an interrupted run ends soon.
    """

    def __init__(self, count: int, *, waiting: int) -> None:
        self._pool = ThreadPoolExecutor(count)
        self._room = count + waiting
        self._queue: deque[Future] = deque()

    def __enter__(self) -> "Threads":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        try:
            while error is None and self._queue:
                self._queue.popleft().result()
        finally:
            self._pool.shutdown(cancel_futures=True)

    def ahead(self, work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """work(item) of every item, in their order; the next ones are under way meanwhile."""
        for item in items:
            self._queue.append(self._pool.submit(work, item))
            if len(self._queue) >= self._room:
                yield self._queue.popleft().result()
        while self._queue:
            yield self._queue.popleft().result()

    def behind(self, work: Callable[..., None], *args: Any) -> None:
        """work(*args) before long; waits only while the queue is full."""
        while self._queue and (len(self._queue) >= self._room or self._queue[0].done()):
            self._queue.popleft().result()
        self._queue.append(self._pool.submit(work, *args))
