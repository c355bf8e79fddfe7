"""File names for benchmark servers: all files in one folder, so names must be unique."""

import re
from collections.abc import Sequence
from pathlib import Path

from util.error import ConfigError

# Official names. Cityscapes' evaluation matches the prefix <city>_<sequence>_<frame>
# (github.com/mcordts/cityscapesScripts, evaluation/evalPixelLevelSemanticLabeling.py).
_PATTERNS = {"cityscapes": re.compile(r"[a-z-]+_\d{6}_\d{6}(_|$)")}
_EXAMPLES = {"cityscapes": "berlin_000000_000019_leftImg8bit.png"}


def check_names(setting: object, names: Sequence[str]) -> None:
    """Raise ConfigError unless names are unique and have the form the server expects.

    `setting` is TEST.export.
    """
    server = setting if isinstance(setting, str) else ""
    pattern = _PATTERNS.get(server)
    taken: dict[str, str] = {}
    for name in names:
        flat = Path(name).name
        if pattern and not pattern.match(flat):
            raise ConfigError(
                f"TEST.export {server}: the server expects official names such as "
                f"{_EXAMPLES[server]}, got {flat}.png: list the images under their official names"
            )
        if taken.setdefault(flat, name) != name:
            raise ConfigError(
                f"TEST.export writes into one folder, but {taken[flat]} and {name} have the same "
                "file name: rename one"
            )
