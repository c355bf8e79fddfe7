"""The rules for SIGTERM, SIGHUP and SIGUSR1: a loop saves and ends the run with exit code 75.

Outside of such loops `util.error.run_cli` ends the program at once, with the same code.
"""

import signal
from types import FrameType

from util.error import STOP_SIGNALS, restore_handlers, set_handler


class StopRequest:
    """While entered, the name of a signal that came is in `name`, else it is empty.

    Once one came this stays until the process ends: schedulers repeat themselves, and saving must
    not be cut short. `more`: other signals to note, of which a second one raises KeyboardInterrupt.
    """

    def __init__(self, *more: signal.Signals) -> None:
        self.name, self._more = "", more

    def __enter__(self) -> "StopRequest":
        _shield_tracker()
        self._before = set_handler(self._note, (*STOP_SIGNALS, *self._more))
        return self

    def __exit__(self, *error: object) -> None:
        if not self.name:
            restore_handlers(self._before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.name and number in self._more:
            raise KeyboardInterrupt
        self.name = self.name or signal.Signals(number).name


def _shield_tracker() -> None:
    """Start Python's resource tracker with these signals ignored.

    One that is sent to the whole process group would end it, and it would be started again and
    warn of semaphores that it does not know.
    """
    if hasattr(signal, "SIGUSR1"):
        from multiprocessing import resource_tracker

        before = set_handler(signal.SIG_IGN)
        resource_tracker.ensure_running()
        restore_handlers(before)
