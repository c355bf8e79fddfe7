"""Runs the parts of a long benchmark, each in its own process with a time limit.

A part that raises, hangs, runs out of memory or breaks its CUDA context does not affect others.
"""

import multiprocessing
import os
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from util.error import UserError, is_out_of_memory
from util.extra.benchmark.record import Deadline, Record

Work = Callable[[Record, Deadline], None]
Found = TypeVar("Found")

GRACE = 10.0  # seconds that a process has to end before it is killed


@dataclass(frozen=True)
class Part:
    """Work that adds rows until its deadline; `share` is its weight when time is divided."""

    name: str
    work: Work
    share: float


def run_parts(
    parts: Sequence[Part], record: Record, *, seconds: float, after: Callable[[], None]
) -> None:
    """Run all parts in order within `seconds`; unused time of a part goes to the next ones.

    `after` is called after each part.
    """
    end = Deadline.after(seconds)
    context = _context()
    for i, part in enumerate(parts):
        limit = (end.left() - GRACE) * part.share / sum(p.share for p in parts[i:])
        if limit <= 0:
            record.add(part.name, "skipped", note="no time left")
            continue
        start = time.monotonic()
        process = context.Process(target=_run, args=(part, record, Deadline.after(limit)))
        process.start()
        process.join(limit + GRACE)
        if process.is_alive():
            process.kill()
            process.join()
            record.add(part.name, "cut off", note=f"killed after {limit + GRACE:.0f} s")
        elif process.exitcode:
            record.add(part.name, "ended early", note=f"exit code {process.exitcode}")
        record.add("time", part.name, seconds=time.monotonic() - start)
        after()


def guarded(record: Record, part: str, name: str, work: Callable[[], Mapping | None]) -> bool:
    """Add a row with the result of `work` or its error; return whether it succeeded."""
    try:
        values = work()
    except Exception as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        record.add(part, name, note=f"{type(error).__name__}: {' '.join(lines[:2])[:300]}")
        traceback.print_exc()
        return False
    if values is not None:
        record.add(part, name, **values)
    return True


def _run(part: Part, record: Record, deadline: Deadline) -> None:
    os.environ["PYTHONFAULTHANDLER"] = "1"
    if not guarded(record, part.name, "failed", lambda: part.work(record, deadline)):
        raise SystemExit(1)


def apart(
    work: Callable[[], Found], *, seconds: float = 60, is_fresh: bool = False
) -> Found | None:
    """Run `work` in its own process and return its result; None on an error or timeout.

    A UserError is raised again in this process. If memory runs out, nothing is printed.
    With `is_fresh` it is spawned, not forked, so that its memory is that of a newly started tool.
    """
    context: Any = multiprocessing.get_context("spawn") if is_fresh else _context()
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(work, theirs))
    process.start()
    theirs.close()
    try:
        found = ours.recv() if ours.poll(seconds) else None
    except EOFError:
        return None
    finally:
        process.join(GRACE)  # its loader cleans up
        process.kill()
        process.join()
    if isinstance(found, UserError):
        raise found
    return found


def _send(work: Callable[[], object], pipe: Connection) -> None:
    try:
        pipe.send(work())
    except UserError as error:
        pipe.send(error)
    except Exception as error:
        if not is_out_of_memory(error):
            raise


def _context() -> Any:
    # fork avoids importing everything again; it is safe because the parent never touches the GPU.
    methods = multiprocessing.get_all_start_methods()
    return multiprocessing.get_context("fork" if "fork" in methods else "spawn")
