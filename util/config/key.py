"""What a configuration key is: a dataclass field with a default, limits and help."""

from dataclasses import MISSING, field
from typing import Any


def key(
    default: Any = MISSING,
    *,
    help: str,
    choices: tuple = (),
    span: tuple[float, float] | None = None,
    above: tuple[float, float] | None = None,
    is_path: bool = False,
    words: tuple[str, ...] = (),
    network: bool = False,
) -> Any:
    """A field of the config; without a default the file must give its value.

    A number lies in `span`, both ends included, or in `above`, without the lower end. Each has an
    upper end, beyond which only a crash later on is possible. `words` are values of a path that are
    not paths. `network`: the key is part of what makes a network, and so of a test's protocol.
    """
    metadata = {
        "help": help,
        "choices": choices,
        "span": span,
        "above": above,
        "is_path": is_path,
        "words": words,
        "network": network,
    }
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)
