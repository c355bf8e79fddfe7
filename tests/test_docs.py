"""The documentation: every command is run or states what it needs, every link has a target."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.helpers.readme_commands import PAGES, blocks
from util.config import ConfigParser, load_config


@pytest.mark.parametrize("page", PAGES)
def test_every_command_has_a_mark(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    assert len(blocks(page)) == len(re.findall(r"^ *```(?:shell|python)$", text, re.MULTILINE))
    for mark, _ in blocks(page):
        assert mark in ("run: CI", "run: after the quick start") or mark.startswith("needs "), mark


def test_ci_runs_the_marked_commands() -> None:
    script = (ROOT / ".ci/run").read_text()
    for page in PAGES:
        for mark, command in blocks(page):
            if mark == "run: CI":
                assert set(command.splitlines()) <= set(re.findall(r"sh tool/\w+\.sh", script))
    assert 'tests/helpers/readme_commands.py "run: after the quick start"' in script


@pytest.mark.parametrize("page", PAGES)
def test_every_link_has_a_target(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!http)([^)\s]+)\)|src=\"([^\"]+)\"", text):
        path, _, heading = "".join(target).partition("#")
        found = (ROOT / page).parent / path if path else ROOT / page
        assert found.exists(), target
        if heading:
            headings = re.findall(r"^#+ (.*)$", found.read_text(encoding="utf-8"), re.MULTILINE)
            assert heading in {re.sub(r"[^\w-]", "", h.lower().replace(" ", "-")) for h in headings}
    for name in re.findall(r"(?<![/\w])(?:config|tool|util|tests|model|figure)/[\w/]+\.\w+", text):
        assert (ROOT / name).exists(), name


def tool_commands() -> list[str]:
    """Collect the distinct tool commands in blocks and text of the documentation."""
    found = set()
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        found |= {m.strip("`") for m in re.findall(r"`(?:python|sh) tool/[^`\n]+`", text)}
        for _, block in blocks(page):
            found |= set(re.findall(r"^(?:\S+=\S+ )?(?:python|sh) tool/.*$", block, re.MULTILINE))
    return sorted(found)


@pytest.mark.parametrize("command", tool_commands())
def test_recipes_and_overrides_of_commands_are_right(command: str) -> None:
    """Commands that are not run because they need data or a GPU at least have a valid config."""
    words = [w.strip("'") for w in re.findall(r"'[^']*'|\S+", command) if "=./" not in w][1:]
    words = words[: words.index("#")] if "#" in words else words
    if "…" in command or "NAME" in command:  # a pattern, not a command
        return
    if words[0] in ("tool/train.sh", "tool/test.sh"):
        dataset, network, *overrides = words[1:]
        path = ROOT / f"config/{dataset}/{dataset}_{network}.yaml"
        if dataset != "mine":
            load_config(path, overrides)
    elif "--config" in command and words[0] != "tool/prepare_folder.py":
        position = 2 if words[0] == "tool/benchmark.py" else 1
        parser = ConfigParser()
        for option in ("--output", "--image", "--json", "--runs", "--images", "--int8"):
            parser.add_argument(option)
        args = parser.parse_args(words[position:])
        load_config(ROOT / args.config, args.overrides)
    assert (ROOT / words[0]).is_file()


def test_readme_is_a_front_page() -> None:
    assert len((ROOT / "README.md").read_text().split()) <= 1300


def test_drawings_come_from_their_script(tmp_path: Path) -> None:
    script = (ROOT / "figure/make_figures.py").read_text()
    (tmp_path / "make_figures.py").write_text(script)
    subprocess.run(["python3", str(tmp_path / "make_figures.py")], check=True)
    for name in ("pspnet.svg", "psanet.svg"):
        assert (tmp_path / name).read_text() == (ROOT / "figure" / name).read_text()
