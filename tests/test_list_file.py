"""Real-world list files: read as intended, or rejected with a clear message."""

import os
import unicodedata
from pathlib import Path

import pytest

from tests.conftest import RunTool, assert_one_sentence
from util.data.list_file import read_list, result_names
from util.error import DataError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("a b.jpg", "a b.png", "c.jpg", "c.png"):
        (tmp_path / name).touch()
    return tmp_path


def listed(root: Path, text: str, **options: bool) -> list:
    (root / "list.txt").write_bytes(text.encode())
    return read_list(root / "list.txt", root, **{"has_labels": True, **options})


def test_lists_with_spaces_windows_line_ends_and_blank_lines(root: Path) -> None:
    samples = listed(root, "\ufeffa b.jpg a b.png\r\nc.jpg c.png\r\n\r\n")
    assert [(s.image.name, s.label.name) for s in samples] == [
        ("a b.jpg", "a b.png"),
        ("c.jpg", "c.png"),
    ]
    assert listed(root, "c.jpg   c.png\n")[0].label.name == "c.png"
    assert listed(root, "a b.jpg\tc.png\n")[0].image.name == "a b.jpg"


def test_split_test_needs_no_labels(root: Path) -> None:
    samples = listed(root, "a b.jpg\nc.jpg c.png\n", has_labels=False)
    assert [s.image.name for s in samples] == ["a b.jpg", "c.jpg"]
    assert all(s.label is None for s in samples)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "list.txt is empty"),
        ("c.jpg c.png\nx.jpg c.png\n", "list.txt line 2: no image "),
        ("c.jpg x.png\n", "line 1: no label "),
        ("c.jpg\n", "holds one path, 'c.jpg'"),
    ],
)
def test_bad_lists(root: Path, text: str, part: str) -> None:
    with pytest.raises(DataError) as error:
        listed(root, text)
    assert part in str(error.value)


def test_missing_list(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no list file"):
        read_list(tmp_path / "nope.txt", tmp_path, has_labels=True)


def test_result_names_are_unique_and_short(root: Path) -> None:
    def names(*paths: str) -> list[str]:
        for path in paths:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).touch()
        return result_names(listed(root, "".join(f"{p} c.png\n" for p in paths)))

    assert names("i/val/x.jpg", "i/val/y.jpg") == ["x", "y"]
    assert names("i/rome/1.jpg", "i/bonn/1.jpg") == ["rome/1", "bonn/1"]
    assert names("i/1.jpg", "i/1.png") == ["1.jpg", "1.png"]
    assert names("i/1.jpg", "i/1.jpg") == ["1", "1"]  # the same image twice
    assert names("i/1.jpg", "i/1.png", "i/1.jpg.png") == ["1.jpg", "1.png", "1.jpg.png"]


@pytest.mark.parametrize(
    "line",
    [
        "a b.jpg\ta b.png",
        "a b.jpg,a b.png",
        "a b.jpg , a b.png",
        '"a b.jpg";"a b.png"',
        "/a b.jpg /a b.png",
        "./a b.jpg ./a b.png",
        "{root}/a b.jpg {root}/a b.png",
        "sub\\d.jpg sub\\d.png",
    ],
)
def test_separators_absolute_paths_and_backslashes(root: Path, line: str) -> None:
    (root / "sub").mkdir()
    for name in ("sub/d.jpg", "sub/d.png"):
        (root / name).touch()
    (sample,) = listed(root, line.replace("{root}", str(root)) + "\n")
    assert sample.image.stem == sample.label.stem and sample.label.samefile(
        root / "sub/d.png" if "sub" in line else root / "a b.png"
    )


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ("c.JPG c.png", "but there is {root}/c.jpg: correct the list"),
        (
            "c.jpg c.png 0.5",
            "has 3 columns, 'c.jpg c.png 0.5': keep only `image label`, here `c.jp",
        ),
        ("c.jpg,c.png,7", "has 3 columns"),
        ("# night images", "'# night images' looks like a comment: remove that line"),
        ("image,label", "'image,label' looks like the header of a table: remove that line"),
        (
            "C:\\data\\c.jpg C:\\data\\c.png",
            "is a Windows path: write paths relative to DATA.data_root",
        ),
        ("folder c.png", "is a folder, but images are files"),
        ("x" * 300 + ".jpg c.png", "no image "),
        ("x\0.jpg c.png", "holds a NUL character"),
    ],
)
def test_invalid_lines_are_explained(root: Path, line: str, part: str) -> None:
    (root / "folder").mkdir()
    with pytest.raises(DataError) as error:
        listed(root, f"c.jpg c.png\n{line}\n")
    assert part.replace("{root}", str(root)) in str(error.value)
    assert "list.txt line 2" in str(error.value)


@pytest.mark.parametrize("text", ["x" * 10_000_000 + " c.png", '{"a": [1, 2]}, ' * 40_000])
def test_a_file_of_one_long_line_is_no_list(root: Path, text: str) -> None:
    """Trying all splits of 600 KB of JSON would take minutes."""
    with pytest.raises(DataError) as error:
        listed(root, f"c.jpg c.png\n{text}\n")
    assert len(str(error.value)) < 1000
    assert f"line 2 has {len(text.strip())} characters, so this is not a list" in str(error.value)


def test_control_characters_do_not_reach_the_terminal(
    tiny: Path, tmp_path: Path, run_tool: RunTool
) -> None:
    (tmp_path / "data/train.txt").write_text("\x1b[31mred\x07.jpg x.png\n")
    code, out, err = run_tool("train", "--config", tiny)
    assert_one_sentence(code, err, "\\x1b[31mred\\x07.jpg")
    assert "\x1b" not in out + err and "\x07" not in out + err


def test_encodings_of_lists(root: Path) -> None:
    for name in ("größe.jpg", "größe.png", "a\u2028b.jpg", "a\u2028b.png"):
        (root / name).touch()
    text = "größe.jpg größe.png\na\u2028b.jpg a\u2028b.png\n"
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        (root / "list.txt").write_bytes(text.encode(encoding))
        assert len(read_list(root / "list.txt", root, has_labels=True)) == 2
    for content, part in (
        (
            "c.jpg c.png\ngröße.jpg größe.png\n".encode("latin-1"),
            "line 2 is not UTF-8 text (byte 0xf6",
        ),
        ("道路.jpg 道路.png".encode("gbk"), "line 1 is not UTF-8 text"),
        (text.encode("utf-16-le"), "line 1 holds a NUL character"),
    ):
        (root / "list.txt").write_bytes(content)
        with pytest.raises(DataError, match="save the list as UTF-8") as error:
            read_list(root / "list.txt", root, has_labels=True)
        assert part in str(error.value)


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_names_in_both_unicode_forms(root: Path, form: str) -> None:
    other = {"NFC": "NFD", "NFD": "NFC"}[form]
    for ending in ("jpg", "png"):
        (root / unicodedata.normalize(form, f"é.{ending}")).touch()
    (sample,) = listed(root, unicodedata.normalize(other, "é.jpg é.png\n"))
    assert sample.image.is_file() and sample.label.is_file()


def test_linked_folders_are_followed(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    disk = tmp_path_factory.mktemp("disk")
    (disk / "c.jpg").touch()
    (root / "night").symlink_to(disk)
    (sample,) = listed(root, "night/c.jpg c.png\n")
    assert result_names([sample]) == ["c"]


def test_results_stay_below_their_folder(tmp_path: Path) -> None:
    root = tmp_path / "data"
    for name in ("data/images/a.jpg", "photos/b.jpg", "data/l.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    lines = [
        "images/a.jpg l.png",
        "../photos/b.jpg l.png",
        "images/../../data/images/./a.jpg l.png",
        f"{tmp_path}/photos/b.jpg l.png",
    ]
    names = result_names(listed(root, "\n".join(lines)))
    assert names == ["data/images/a", "photos/b", "data/images/a", "photos/b"]
    for name in names:
        target = os.path.normpath(tmp_path / "out" / f"{name}.png")
        assert target.startswith(f"{tmp_path}/out/")
