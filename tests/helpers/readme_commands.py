"""Print the commands of README.md and FAQ.md that carry a mark, as a script."""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MARKS = ("(CI)", "needs data", "needs a GPU", "after the quick start")


def commands() -> list[tuple[str, str]]:
    """(command, mark) of every line in a shell block."""
    found = []
    for page in ("README.md", "FAQ.md"):
        for block in re.findall(r"```shell\n(.*?)```", (ROOT / page).read_text(), re.DOTALL):
            for line in block.strip().splitlines():
                command, _, mark = line.strip().partition("  #")
                if not mark:
                    command, _, mark = line.strip().partition(" # ")
                found.append((command.strip(), mark.strip()))
    return found


if __name__ == "__main__":
    print("set -ex")
    for command, mark in commands():
        if mark == sys.argv[1]:
            print(command)
