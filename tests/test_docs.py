"""README and FAQ: every key documented, every command marked or run, every image there."""

import re
from dataclasses import MISSING, Field

from tests.conftest import ROOT
from tests.helpers.readme_commands import MARKS, commands
from util.config.keys import FIELDS, full_name

README, FAQ = ((ROOT / name).read_text() for name in ("README.md", "FAQ.md"))


def shown_default(f: Field) -> str:
    if f.default_factory is not MISSING:
        return f"`{f.default_factory()}`"
    if f.default is MISSING:
        return "required"
    return "empty" if f.default in (None, "") else f"`{f.default}`"


def test_the_faq_lists_exactly_the_keys_with_their_defaults() -> None:
    rows = re.findall(r"^\| (\w+\.\w+) \| (.*?) \| .+ \|$", FAQ, re.MULTILINE)
    assert rows == [(full_name(name), shown_default(f)) for name, f in FIELDS.items()]


def test_every_command_is_run_or_says_what_it_needs() -> None:
    found = commands()
    assert len(found) >= 10
    for command, mark in found:
        assert mark.startswith(MARKS), f"`{command}` has no mark: {mark!r}"
    # CI runs what is marked so: the two set-up commands, and the rest after the quick start.
    ci = (ROOT / ".ci/run").read_text()
    for command, mark in found:
        if mark.startswith("(CI)"):
            assert command in ci
    assert 'tests/helpers/readme_commands.py "after the quick start"' in ci


def test_linked_files_exist() -> None:
    for page in (README, FAQ):
        links = re.findall(r"\]\((?!http)([^)#]+)\)|src=\"\./([^\"]+)\"", page)
        assert links or page is FAQ
        for target in links:
            path = ROOT / "".join(target)
            assert path.exists(), path
    for name in re.findall(r"config/[\w/]+\.yaml|tool/\w+\.(?:py|sh)|util/\w+\.py", README + FAQ):
        assert (ROOT / name).exists(), name


def test_no_placeholder_is_left() -> None:
    assert "@" not in re.sub(r"```.*?```", "", README + FAQ, flags=re.DOTALL)
