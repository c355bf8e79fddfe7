"""Requests to end: SIGTERM and SIGUSR1, by which schedulers announce that time is up."""

import os
import signal

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class StopRequest:
    """While entered, notes SIGTERM and SIGUSR1 in `name` instead of dying of them."""

    def __enter__(self) -> "StopRequest":
        self.name = ""
        self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: object) -> None:
        self.name = signal.Signals(number).name


class Forwarder:
    """While entered, hands SIGTERM and SIGUSR1 on to the processes `pids`, which save and end."""

    def __init__(self, pids: list[int]) -> None:
        self._pids = pids

    def __enter__(self) -> "Forwarder":
        self._before = {number: signal.signal(number, self._forward) for number in SIGNALS}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _forward(self, number: int, frame: object) -> None:
        for pid in self._pids:
            try:
                os.kill(pid, number)
            except ProcessLookupError:  # it has ended already
                continue
