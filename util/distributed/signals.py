"""Requests to end: SIGTERM and SIGUSR1, by which schedulers announce that time is up."""

import os
import signal
from multiprocessing import resource_tracker
from typing import Self

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


def shield_tracker() -> None:
    """Start Python's tracker of semaphores deaf to SIGUSR1, as it is to SIGTERM.

    Else it dies of a signal to the whole group, is started anew, and complains of what it missed.
    """
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    resource_tracker.ensure_running()
    signal.signal(signal.SIGUSR1, before)


class _Handlers:
    """Own handlers of SIGNALS while entered. Once a signal came they stay until the process ends:
    schedulers repeat themselves, and saving must not be cut short."""

    def __enter__(self) -> Self:
        self.name = ""
        shield_tracker()
        self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items() if not self.name else ():
            signal.signal(number, handler)

    def _note(self, number: int, frame: object) -> None:
        self.name = signal.Signals(number).name


class StopRequest(_Handlers):
    """While entered, notes SIGTERM and SIGUSR1 in `name` instead of dying of them."""


class Forwarder(_Handlers):
    """While entered, hands SIGTERM and SIGUSR1 on to the processes `pids`, which save and end."""

    def __init__(self, pids: list[int]) -> None:
        self._pids = pids

    def _note(self, number: int, frame: object) -> None:
        super()._note(number, frame)
        for pid in self._pids:
            try:
                os.kill(pid, number)
            except ProcessLookupError:  # it has ended already
                continue
