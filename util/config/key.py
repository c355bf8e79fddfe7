"""Definition of a configuration key: a dataclass field with a default, limits and help."""

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
    """Define a config field; without a default the key is required in the file.

    Numbers are limited to `span`, inclusive, or to `above`, without the lower end. Upper limits
    exclude values that can only crash later. `words` are values of a path key that are not paths.
    `network` keys define the network and are part of the test protocol.
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
