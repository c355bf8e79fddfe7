"""When a process is lost, the others end too: soon, and with the reason said once.

Each process sends a sign of life through the store where they met, and watches its neighbour's.
"""

import os
import socket
import sys
import threading
import time
import traceback

from torch.distributed import DistError, Store

from util.error import EXIT_INTERRUPTED, EXIT_USER_ERROR, UserError

PERIOD = 3.0  # seconds between two signs of life
SILENCE = 30.0  # seconds without one after which a process counts as lost
PATIENCE = 5.0  # seconds that a process waits for one that knows more about the loss

_EXIT_LOST = 1
_LOST_PEER = ("closed by peer", "reset by peer", "Broken pipe", "Connection refused")
_STALLED = ("Timed out waiting", "timed out", "timeout")


class Failure:
    """The one reason why a run of several processes ends, kept in the store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def announce(self, reason: str, code: int) -> bool:
        """Say the reason on stderr and note the exit code, unless another process has. True if so.

        A store that is gone cannot be asked: then the reason is said.
        """
        try:
            is_first = self._store.add("failures", 1) == 1
            if is_first:
                self._store.set("exit_code", str(code))
        except (DistError, RuntimeError):
            is_first = True
        if is_first:
            print(reason, file=sys.stderr, flush=True)
        return is_first

    def code(self, *, wait: float = 0.0) -> int | None:
        """The exit code that was announced, waiting so many seconds for one; else None."""
        end = time.monotonic() + wait
        while True:
            try:
                if self._store.check(["exit_code"]):
                    return int(self._store.get("exit_code"))
            except (DistError, RuntimeError):
                return None
            if time.monotonic() >= end:
                return None
            time.sleep(0.1)


class Watch(threading.Thread):
    """Sends signs of life of process `rank` and ends it when another one has been lost."""

    def __init__(self, store: Store, rank: int, world_size: int) -> None:
        super().__init__(daemon=True)
        self._store, self._rank = store, rank
        self._neighbour = (rank + 1) % world_size
        self._ended = threading.Event()
        self.failure = Failure(store)
        store.set(f"host_{rank}", socket.gethostname())

    def run(self) -> None:
        count, seen, seen_at = 0, -1, time.monotonic()
        while not self._ended.wait(PERIOD):
            count += 1
            try:
                self._store.set(f"alive_{self._rank}", str(count))
                key = f"alive_{self._neighbour}"
                found = int(self._store.get(key)) if self._store.check([key]) else -1
                code = self.failure.code()
            except (DistError, RuntimeError):
                self._leave("lost contact with the first process, where all of them meet", 1)
                return
            now = time.monotonic()
            seen_at = now if found != seen else seen_at
            seen = found
            if code is not None:
                self._leave("", code)
            elif now - seen_at > SILENCE:
                host = self._store.get(f"host_{self._neighbour}").decode()
                self._leave(
                    f"no sign of life from rank {self._neighbour} on {host} for {SILENCE:.0f} s: "
                    "its machine or process has stopped",
                    _EXIT_LOST,
                )

    def close(self) -> None:
        """End the watch, at the orderly end of the run."""
        self._ended.set()
        self.join()

    def fail(self, error: BaseException, *, timeout_minutes: float) -> int:
        """Say why this process cannot go on, unless the reason is known; returns the exit code."""
        lost = isinstance(error, (DistError, RuntimeError)) and any(
            words in str(error) for words in (*_LOST_PEER, *_STALLED)
        )
        if lost:  # a consequence: whoever knows the cause says it
            code = self.failure.code(wait=PATIENCE)
            if code is not None:
                return code
        code = _EXIT_LOST
        if lost and any(words in str(error) for words in _STALLED):
            reason = (
                f"waited {timeout_minutes:g} minutes for the other processes, one of which hangs "
                "or is far behind; Distributed.timeout_minutes sets this limit"
            )
        elif lost:
            reason = f"another process has gone without a word ({_first_line(error)})"
        elif isinstance(error, UserError):
            reason, code = str(error), EXIT_USER_ERROR
        elif isinstance(error, KeyboardInterrupt):
            reason, code = "interrupted", EXIT_INTERRUPTED
        else:
            reason = "".join(traceback.format_exception(error)).rstrip()
        self.failure.announce(f"error: {self._place()}: {reason}", code)
        known = self.failure.code()
        return code if known is None else known

    def _place(self) -> str:
        return f"rank {self._rank} on {socket.gethostname()}"

    def _leave(self, reason: str, code: int) -> None:
        """End this process, whose main thread may wait for a lost one for ever."""
        if self._ended.wait(PATIENCE):  # it came to its own end meanwhile
            return
        if reason:
            self.failure.announce(f"error: {self._place()}: {reason}", code)
        sys.stdout.flush()
        os._exit(code)


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0]
