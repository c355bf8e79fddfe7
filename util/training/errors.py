"""What can end a run besides the user's input, in words: memory, loader processes, compilers."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from util.config import Config
from util.error import RunError

_NO_MEMORY = ("can't allocate memory", "not enough memory", "CUDA out of memory")


@contextmanager
def explained(cfg: Config) -> Iterator[None]:
    """Within it, such an error becomes a RunError with the cure and the settings as they are."""
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise _out_of_memory(cfg, error) from None
    except RuntimeError as error:
        if any(words in str(error) for words in _NO_MEMORY):
            raise _out_of_memory(cfg, error) from None
        if "DataLoader worker" in str(error):
            raise RunError(
                f"{_lost_worker(error)}: with 'Killed' the machine is usually out of memory, with "
                f"'Bus error' out of shared memory (/dev/shm); lower TRAIN.workers {cfg.workers}, "
                "0 loads in the training process itself. TRAIN.resume auto goes on"
            ) from None
        if cfg.compile and _is_of_compiler(error):
            raise RunError(
                "TRAIN.compile True needs a working C++ compiler (on Debian and Ubuntu: apt "
                f"install g++), set it to False without one; it said: {_first_line(error)}"
            ) from None
        raise


def _out_of_memory(cfg: Config, error: BaseException) -> RunError:
    asked = re.search(r"[Tt]ried to allocate ([\d.,]+ ?\w+)", str(error))
    more = f" ({asked[1]} more were asked for)" if asked else ""
    return RunError(
        f"out of memory{more}: lower TRAIN.train_h {cfg.train_h} and train_w {cfg.train_w}, or "
        f"TRAIN.batch_size {cfg.batch_size}; with the same results raise TRAIN.accumulate_steps "
        f"{cfg.accumulate_steps} (with freeze_bn {cfg.freeze_bn}) or set "
        f"TRAIN.activation_checkpointing {cfg.activation_checkpointing} to True; TRAIN.amp "
        f"{cfg.amp} may become bf16. TRAIN.resume auto goes on"
    )


def _lost_worker(error: RuntimeError) -> str:
    match = re.search(r"DataLoader worker \(pid[^)]*\) [^.]*", str(error))
    return match[0] if match else "a DataLoader worker ended"


def _is_of_compiler(error: RuntimeError) -> bool:
    return type(error).__module__.startswith(("torch._dynamo", "torch._inductor"))


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
