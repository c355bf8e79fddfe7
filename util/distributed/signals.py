"""The rules for SIGTERM, SIGUSR1 and SIGHUP: save what there is, end with exit code 75.

Within a StopRequest a signal is noted, and the loop that works there saves and ends. Elsewhere
there is nothing to save: the process ends at once. A signal that `nohup` ignores stays ignored.
"""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from util.error import EXIT_STOPPED

# Windows has only the first of them.
SIGNALS = [getattr(signal, n) for n in ("SIGTERM", "SIGUSR1", "SIGHUP") if hasattr(signal, n)]

Handler = Callable[[int, FrameType | None], None]


class Stopped(SystemExit):
    """A signal came when there was nothing to save."""

    def __init__(self) -> None:
        super().__init__(EXIT_STOPPED)


class StopRequest:
    """While entered, the name of a signal that came is in `name`, else it is empty.

    Once one came this stays until the process ends: schedulers repeat themselves, and saving must
    not be cut short. `more`: other signals to note, of which a second one raises KeyboardInterrupt.
    """

    def __init__(self, *more: signal.Signals) -> None:
        self.name, self._more = "", more

    def __enter__(self) -> "StopRequest":
        _shield_tracker()
        self._before = _install(self._note, [*SIGNALS, *self._more])
        return self

    def __exit__(self, *error: object) -> None:
        if not self.name:
            _restore(self._before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.name and number in self._more:
            raise KeyboardInterrupt
        self.name = self.name or signal.Signals(number).name


@contextmanager
def ending_at_once() -> Iterator[None]:
    """While entered, and outside of a StopRequest, a signal raises Stopped."""

    def leave(number: int, frame: FrameType | None) -> None:
        _install(signal.SIG_IGN, SIGNALS)  # a second one must not disturb the end
        raise Stopped

    before = _install(leave, SIGNALS)
    yield
    _restore(before)


def _install(handler: Handler | signal.Handlers, signals: list[signal.Signals]) -> dict:
    """Set a handler for those signals that are not ignored; returns what handled them before."""
    numbers = [number for number in signals if signal.getsignal(number) is not signal.SIG_IGN]
    return {number: signal.signal(number, handler) for number in numbers}


def _restore(before: dict) -> None:
    for number, handler in before.items():
        signal.signal(number, handler)


def _shield_tracker() -> None:
    """Start Python's resource tracker with these signals ignored.

    One that is sent to the whole process group would end it, and it would be started again and
    warn of semaphores that it does not know.
    """
    if hasattr(signal, "SIGUSR1"):
        from multiprocessing import resource_tracker

        before = _install(signal.SIG_IGN, SIGNALS)
        resource_tracker.ensure_running()
        _restore(before)
