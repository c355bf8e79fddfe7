"""Clear messages for system failures during training: memory, disk, loader workers, compiler."""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager

from util.config import Config
from util.error import RunError, fix_of, is_out_of_memory

_NOT_WRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


@contextmanager
def explained(cfg: Config) -> Iterator[None]:
    """Turn such a failure within this context into a RunError with the fix and current settings."""
    try:
        yield
    except OSError as error:
        if error.errno not in _NOT_WRITABLE:
            raise
        raise RunError(
            f"{error.filename or 'a file'} cannot be written: {error.strerror}; the checkpoints in "
            f"{cfg.save_path} are intact: {fix_of(error)}, then TRAIN.resume auto continues"
        ) from None
    except (MemoryError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise _out_of_memory(cfg, error) from None
        if "DataLoader worker" in str(error) or _is_shared_memory_error(error):
            raise RunError(
                f"{_worker_message(error)}: 'Killed' usually means that the machine is out of "
                "memory, 'Bus error' that shared memory (/dev/shm) is full; lower TRAIN.workers "
                f"{cfg.workers} (0 loads in the training process). TRAIN.resume auto continues"
            ) from None
        if cfg.compile and _is_compiler_error(error):
            raise RunError(
                "TRAIN.compile True needs a working C++ compiler (on Debian and Ubuntu: apt "
                f"install g++); set it to False without one. Original error: {_first_line(error)}"
            ) from None
        raise


def _out_of_memory(cfg: Config, error: BaseException) -> RunError:
    asked = re.search(r"[Tt]ried to allocate ([\d.,]+ ?\w+)", str(error))
    more = f" ({asked[1]} more requested)" if asked else ""
    lower = (
        f"lower TRAIN.train_h {cfg.train_h} and train_w {cfg.train_w}, or TRAIN.batch_size "
        f"{cfg.batch_size}"
    )
    others = [f"raise TRAIN.accumulate_steps {cfg.accumulate_steps}"]
    if not cfg.activation_checkpointing:
        others.append("set TRAIN.activation_checkpointing True")
    if cfg.amp == "off":
        others.append("set TRAIN.amp bf16")
    return RunError(
        f"out of memory{more}: {lower}; or {', or '.join(others)}. TRAIN.resume auto continues"
    )


def _worker_message(error: BaseException) -> str:
    match = re.search(r"DataLoader worker \(pid[^)]*\) [^.]*", str(error))
    return match[0] if match else "a DataLoader worker ended"


def _is_shared_memory_error(error: BaseException) -> bool:
    return bool(re.search(r"unable to \w+ .*(</torch_|shared memory)", str(error)))


def _is_compiler_error(error: BaseException) -> bool:
    return type(error).__module__.startswith(("torch._dynamo", "torch._inductor"))


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
