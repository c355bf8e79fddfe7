"""The commands in the documentation. As a script: print the ones with a given mark for a shell.

The mark of a block is the (invisible) HTML comment above it: `run: CI`, `run: after the quick
start` or `needs ...` (data, a GPU, SLURM).
"""

import re
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("config", "dataset", "initmodel", "model", "tool")
PAGES = ("README.md", "FAQ.md", *(f"{folder}/README.md" for folder in FOLDERS))
BLOCK = re.compile(
    r"^ *<!-- (?P<mark>[^>]*) -->\n *```(?P<kind>\w+)\n(?P<body>.*?)^ *```$",
    re.MULTILINE | re.DOTALL,
)


def blocks(page: str) -> list[tuple[str, str]]:
    """Return (mark, command) of each marked block of a page; Python code becomes a command."""
    found = []
    for block in BLOCK.finditer((ROOT / page).read_text(encoding="utf-8")):
        body = textwrap.dedent(block["body"]).strip()
        if block["kind"] == "python":
            body = f"python - <<'END'\n{body}\nEND"
        found.append((block["mark"], body))
    return found


if __name__ == "__main__":
    print("set -ex")
    for page in PAGES:
        for mark, command in blocks(page):
            if mark == sys.argv[1]:
                print(command)
