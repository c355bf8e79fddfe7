"""Threads beside the network: order, bounds, errors, and a quick end."""

import threading
import time

import pytest

from util.error import DataError
from util.evaluation.pipeline import Threads


def test_results_come_in_the_order_of_items() -> None:
    def slow_first(i: int) -> int:
        time.sleep(0.02 if i % 3 == 0 else 0)
        return i * i

    with Threads(3, waiting=2) as threads:
        assert list(threads.ahead(slow_first, range(20))) == [i * i for i in range(20)]


def test_reading_ahead_is_bounded_and_overlaps() -> None:
    begun: list[int] = []
    with Threads(1, waiting=2) as threads:
        for done, _ in enumerate(threads.ahead(begun.append, range(10)), 1):
            time.sleep(0.02)
            assert done < len(begun) <= done + 2 or len(begun) == 10


def test_writing_behind_is_bounded() -> None:
    gate, begun = threading.Event(), []

    def work(i: int) -> None:
        gate.wait()
        begun.append(i)

    with Threads(1, waiting=2) as threads:
        threading.Timer(0.1, gate.set).start()
        start = time.perf_counter()
        for i in range(3):
            threads.behind(work, i)
        assert time.perf_counter() - start < 0.09  # the queue has room for three
        threads.behind(work, 3)
        assert begun[:1] == [0]  # the fourth had to wait
    assert begun == [0, 1, 2, 3]


def fail(i: int) -> None:
    if i == 1:
        raise DataError("image 1 is bad")


def test_an_error_surfaces_in_the_caller() -> None:
    with pytest.raises(DataError, match="image 1"), Threads(1, waiting=1) as threads:
        list(threads.ahead(fail, range(5)))
    with pytest.raises(DataError, match="image 1"), Threads(1, waiting=9) as threads:
        threads.behind(fail, 1)  # the last one: raised on leaving
    taken = []
    with pytest.raises(DataError, match="image 1"), Threads(1, waiting=1) as threads:
        for i in range(9):
            threads.behind(fail, i)
            taken.append(i)
    assert len(taken) < 9


def test_an_interruption_drops_what_waits() -> None:
    done = []

    def work(i: int) -> None:
        time.sleep(0.05)
        done.append(i)

    with pytest.raises(KeyboardInterrupt), Threads(1, waiting=50) as threads:
        for i in range(50):
            threads.behind(work, i)
        raise KeyboardInterrupt
    assert len(done) <= 2
