"""Graceful stop on SIGTERM, SIGHUP and SIGUSR1: save, then exit with code 75.

Outside a StopRequest, `util.error.run_cli` exits at once with the same code.
"""

import signal
from types import FrameType

from util.error import STOP_SIGNALS, restore_handlers, set_handler


class StopRequest:
    """Context manager that records a stop signal in `name`, which is empty until then.

    After a signal the handlers stay installed until the process exits: schedulers repeat signals,
    which must not interrupt saving. `more` lists further signals to record; a second signal of
    these raises KeyboardInterrupt.
    """

    def __init__(self, *more: signal.Signals) -> None:
        self.name, self._more = "", more

    def __enter__(self) -> "StopRequest":
        _protect_resource_tracker()
        self._before = set_handler(self._record, (*STOP_SIGNALS, *self._more))
        return self

    def __exit__(self, *error: object) -> None:
        if not self.name:
            restore_handlers(self._before)

    def _record(self, number: int, frame: FrameType | None) -> None:
        if self.name and number in self._more:
            raise KeyboardInterrupt
        self.name = self.name or signal.Signals(number).name


def _protect_resource_tracker() -> None:
    """Start Python's resource tracker with these signals ignored.

    A signal to the process group would kill it; restarted, it would warn about semaphores it does
    not know.
    """
    if hasattr(signal, "SIGUSR1"):
        from multiprocessing import resource_tracker

        before = set_handler(signal.SIG_IGN)
        resource_tracker.ensure_running()
        restore_handlers(before)
