"""Tools report user and system errors in one sentence; bugs keep their traceback."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, RunTool, assert_one_sentence, command
from util.error import (
    ConfigError,
    DataError,
    is_out_of_memory,
    nearest,
    read_json,
    read_text,
    run_cli,
    show,
    user_message,
)
from util.palette import load_colors, load_names

MACHINE = [
    "ENOSPC",
    "EDQUOT",
    "EROFS",
    "EEXIST",
    "ELOOP",
    "ENXIO",
    "EFBIG",
    "EACCES",
    "EPERM",
    "EIO",
    "EMFILE",
    "ENAMETOOLONG",
    "EISDIR",
    "ENOTDIR",
    "ENOENT",
    "EBUSY",
    "ETXTBSY",
]


@pytest.mark.parametrize("filename", [None, "/some/file"])
@pytest.mark.parametrize("name", MACHINE)
def test_errors_of_the_machine_are_one_sentence(
    capsys: pytest.CaptureFixture, name: str, filename: str | None
) -> None:
    number = getattr(errno, name)

    def main() -> None:
        raise OSError(number, os.strerror(number), filename)

    with pytest.raises(SystemExit) as stop:
        run_cli(main)
    parts = [os.strerror(number)] + ([filename] if filename else [])
    assert_one_sentence(stop.value.code, capsys.readouterr().err, *parts)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("x"),
        KeyError("x"),
        RecursionError("x"),
        AssertionError("x"),
        OSError("no number"),
        OSError(errno.EBADF, "Bad file descriptor"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid"),
    ],
    ids=repr,
)
def test_bugs_keep_their_traceback(error: Exception) -> None:
    def main() -> None:
        raise error

    with pytest.raises(type(error)):
        run_cli(main)


@pytest.mark.parametrize(
    ("error", "is_memory"),
    [
        (MemoryError(), True),
        (MemoryError("Unable to allocate 7 EiB"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9"), True),
        (type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory."), True),
        (type("error", (Exception,), {})("(-4:Insufficient memory) Failed to allocate 9"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
    ],
)
def test_out_of_memory_is_recognised(error: Exception, is_memory: bool) -> None:
    assert is_out_of_memory(error) == is_memory
    message = user_message(error)
    assert message.startswith("out of memory: ") if is_memory else message is None


def test_a_full_standard_output() -> None:
    code = "from util.error import run_cli; run_cli(lambda: print('x' * 100))"
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert_one_sentence(done.returncode, done.stderr, "No space left on device")


def test_a_reader_that_closes_the_pipe() -> None:
    code = "from util.error import run_cli; run_cli(lambda: [print('x' * 99) for _ in range(9999)])"
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.readline()
    process.stdout.close()
    err = process.stderr.read().decode()
    assert_one_sentence(process.wait(), err, "Broken pipe")


def test_names_that_the_terminal_cannot_encode() -> None:
    code = "from util.error import run_cli; run_cli(lambda: print('\\u4e2d', '\\udcff'))"
    done = command(sys.executable, "-c", code, PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stdout) == (0, "\\u4e2d \\udcff\n"), done.stderr


def test_show_is_one_short_line() -> None:
    assert show("a\nb\x1b[31m\u4e2d") == "a\\nb\\x1b[31m\u4e2d"
    assert show("x" * 1000, limit=10) == "xxxxxxxxxx... (1000 characters)"
    assert nearest("x" * 10**6, ["epochs"]) == []


def test_files_in_other_encodings(tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_bytes("Stra\u00dfe\n".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"names.txt is not UTF-8 text \(byte 0xdf at offset 4\)"):
        load_names(str(path), 1)
    with pytest.raises(ConfigError, match="is not UTF-8 text"):
        load_colors(str(path), 1)
    path.write_text("Stra\u00dfe\n", encoding="utf-8-sig")
    assert load_names(str(path), 1) == ["Stra\u00dfe"]


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("road\ncar\nroad\n", "line 3 repeats 'road' of line 1: give each class its own name"),
        ("a\nb\nc\nb\n", "line 4 repeats 'b' of line 2"),  # also if the count is wrong
        ("# my classes\nroad\ncar\ntree\n", "line 1 '# my classes' looks like a comment"),
        ("#road\ncar\ntree\n", "line 1 '#road' looks like a comment, but each line names a class"),
        ("road\n\ncar\n", "line 2 is empty, but each line names a class: remove it or write a"),
        ("road\ncar\n", "holds 2 names, but DATA.classes is 3"),
    ],
)
def test_names_that_cannot_be_told_apart(tmp_path: Path, text: str, part: str) -> None:
    path = tmp_path / "names.txt"
    path.write_text(text)
    with pytest.raises(ConfigError, match=rf"^TEST\.names_path {path} {part}"):
        load_names(str(path), 3)


@pytest.mark.parametrize("text", ["{", "[" * 100000, "", "\x00"])
def test_a_file_that_is_not_json(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(DataError, match=r"a\.json is not valid JSON"):
        read_json(tmp_path / "a.json", DataError)
    (tmp_path / "b.json").write_text(json.dumps({"a": 1}))
    assert read_json(tmp_path / "b.json", DataError) == {"a": 1}
    assert read_text(tmp_path / "b.json", DataError) == '{"a": 1}'


TOOLS = sorted(path.name for path in ROOT.glob("tool/*.py"))


@pytest.mark.parametrize("tool", TOOLS)
def test_without_the_packages_every_tool_says_how_to_get_them(tool: str) -> None:
    done = command(sys.executable, "-S", "-I", f"tool/{tool}", "--help")  # -S: no site-packages
    assert_one_sentence(done.returncode, done.stderr, "lacks torch", "sh tool/quickstart.sh")


@pytest.mark.parametrize("tool", TOOLS)
def test_help_of_every_tool(run_tool: RunTool, monkeypatch: pytest.MonkeyPatch, tool: str) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    code, out, err = run_tool(tool.removesuffix(".py"), "--help")
    assert code == 0, err
    assert max(map(len, out.splitlines())) <= 100


@pytest.mark.parametrize("line", ["1 2", "1 2 256", "1 2 -3", "1 2 x", "1 2 3 4", "1 2 \u00b2", ""])
def test_a_colours_file_with_another_content(tmp_path: Path, line: str) -> None:
    path = tmp_path / "colors.txt"
    path.write_text(f"{line}\n0 0 0\n")
    with pytest.raises(ConfigError, match="must hold one `R G B` per line"):
        load_colors(str(path), 2)
