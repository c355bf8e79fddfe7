"""report.html: complete, escaped, of limited size, self-contained, and right in a real browser."""

import base64
import re
import shutil
import subprocess
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from markupsafe import escape
from PIL import Image

from util.evaluation.result import Result, make_result
from util.extra.report.images import ERROR, Example, errors, shrunk
from util.extra.report.page import IMAGES, LIMIT, choose_images, confused_pairs, write_report
from util.metric import ImageCounts, count_pixels
from util.palette import distinct_colors

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
FLAGS += ["--disable-background-networking", "--dump-dom"]
BAD_NAMES = ["<script>alert(1)</script>", 'a & "b"', "street sign, traffic sign", "x" * 60]
# Asks the page itself: images, those that did not load, its width, that of the window. A frame
# can be as narrow as a phone; windows are 500 pixels wide at least.
PROBE = """<script>addEventListener("load", () => {
  const broken = [...document.images].filter(i => !i.complete || !i.naturalWidth).length;
  const width = document.documentElement.scrollWidth;
  parent.postMessage([document.images.length, broken, width, innerWidth].join(), "*");
});</script>"""
FRAME = """<script>addEventListener("message", e => document.title = "probe," + e.data);</script>
<iframe src="probe.html" width="WIDTH" height="800" style="border:0"></iframe>"""


class MadeUp(NamedTuple):
    """The arguments of `write_report` for a synthetic test."""

    result: Result
    image_of: np.ndarray
    data: list[tuple[np.ndarray, np.ndarray, np.ndarray]]


def made_up(names: list[str], *, images: int = 12, size: tuple[int, int] = (60, 90)) -> MadeUp:
    """Create a result from noisy stripes of all classes with a void border."""
    rng = np.random.default_rng(2)
    counts, data = ImageCounts(len(names)), []
    for i in range(images):
        label = (np.indices(size)[1] * len(names) // size[1] + i) % len(names)
        noise = rng.integers(0, len(names), size)
        pred = np.where(rng.random(size) < 0.02 * (i + 1), noise, label)
        label[:3] = 255
        data.append((rng.integers(0, 256, (*size, 3), np.uint8), label, pred))
        matrix = count_pixels(pred, label, classes=len(names), ignore_label=255)
        counts.add(matrix, image=i)
    protocol = {"images": images, "images_per_second": 2.5, "has_prediction": False}
    protocol |= {"list": "<list> & more.txt", "scales": [0.5, 1.0], "network": {"arch": "<psp>"}}
    protocol["network"] |= {"backbone": "", "mask_h": None, "aux": 0, "compact": False}
    protocol |= {"checkpoint": None, "export": "", "label_map": {}, "skipped": 0}
    image_names = [f"<p{i}>&" for i in range(images)]
    result = make_result(counts, names=names, images=image_names, protocol=protocol)
    return MadeUp(result, counts.image_of, data)


def write(tmp_path: Path, test: MadeUp) -> str:
    write_report(
        tmp_path / "report.html",
        test.result,
        image_of=test.image_of,
        colors=distinct_colors(len(test.result.names)),
        load=test.data.__getitem__,
        title="<run> & co",
    )
    return (tmp_path / "report.html").read_text(encoding="utf-8")


class Checker(HTMLParser):
    """Checks that tags are properly nested; collects tags and text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_is_whole_and_escaped(tmp_path: Path) -> None:
    test = made_up(BAD_NAMES)
    page = write(tmp_path, test)
    checker = Checker()
    checker.feed(page)
    assert checker.open == []
    tags = [tag for tag, _ in checker.tags]
    assert "script" not in tags and "link" not in tags
    for name in (*BAD_NAMES[:3], *test.result.images[:1], "<run> & co", "<list> & more.txt"):
        assert name in checker.text and str(escape(name)) in page
    for _, attributes in checker.tags:
        assert attributes.get("src", "data:").startswith("data:image/") or "src" not in attributes
        assert "href" not in attributes
    assert "http" not in page and "url(" not in page
    for key in ("miou", "macc", "aacc", "fwiou"):
        assert f"{100 * test.result.scores[key]:.1f} %" in checker.text
    assert tags.count("figure") == 3 * IMAGES + 6


@pytest.mark.parametrize("classes", [11, 150])
def test_every_class_is_there(tmp_path: Path, classes: int) -> None:
    names = [f"kind number {i}" for i in range(classes)]
    page = write(tmp_path, made_up(names, size=(30, 300)))
    table = page[page.index("<table class") : page.index("</table>")]
    svg = page[page.index("<svg") : page.index("</svg>")]
    for name in names:
        assert f"</i>{name}</th>" in table and svg.count(f">{name}</text>") == 2


def test_columns_are_explained_and_empty_values_are_dashes(tmp_path: Path) -> None:
    page = write(tmp_path, made_up(["a", "b"]))
    assert page.count("<abbr title=") == 2 and ">Share of pixels</th>" in page
    protocol = page[page.index("<h2>Protocol") :]
    rows = dict(re.findall(r"<tr><th>(.*)</th><td>(.*)</td></tr>", protocol))
    assert rows["network"] == "arch &lt;psp&gt;, backbone -, mask_h -, aux 0, compact no"
    assert [rows[key] for key in ("checkpoint", "export", "label map")] == ["-"] * 3
    assert (rows["skipped"], rows["scales"], rows["has prediction"]) == ("0", "0.5, 1.0", "no")


def test_the_page_stays_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = made_up(["a", "b", "c"], images=9, size=(500, 700))  # noise: hard to compress
    sides = []
    for limit in (LIMIT, 1_000_000):
        monkeypatch.setattr("util.extra.report.page.LIMIT", limit)
        page = write(tmp_path, results)
        assert len(page.encode()) <= limit and page.count("<img") == 36 + 3 * 6
        source = re.search(r"data:image/jpeg;base64,([^\"]+)", page)
        assert source
        sides.append(max(Image.open(BytesIO(base64.b64decode(source[1]))).size))
    assert sides[1] < sides[0] <= 480


def test_a_single_class_without_mistakes(tmp_path: Path) -> None:
    results = made_up(["only"], images=1)
    page = write(tmp_path, results)
    assert "<p>None.</p>" in page and page.count("<figure>") == 1


@pytest.mark.parametrize("count", range(12))
def test_images_are_chosen_once(count: int) -> None:
    miou = np.append(np.random.default_rng(count).permutation(count) / 10, np.nan)
    chosen = choose_images(miou)
    listed = [i for group in chosen.values() for i in group]
    assert len(set(listed)) == len(listed) <= count and count not in listed
    if count:
        assert chosen["Best"][0] == np.nanargmax(miou)
    if count > 1:
        assert chosen["Worst"][0] == np.nanargmin(miou)
    if count == 11:  # order 10, 9, 8 | 7 | 6, 5, 4 | 3 | 2, 1, 0
        assert [round(10 * miou[i]) for i in chosen["Median"]] == [6, 5, 4]


def test_pairs_are_those_that_cost_most() -> None:
    matrix = np.array([[900, 0, 50], [0, 10, 30], [0, 0, 500]])
    # 30 of 40 pixels of class 1 are lost; 50 are few of classes 0 and 2.
    assert confused_pairs(matrix) == [(1, 2), (0, 2)]


def test_the_image_with_most_of_a_confusion_is_known() -> None:
    counts = ImageCounts(2)
    for image, wrong in enumerate((1, 3, 2)):
        pred = (np.arange(4) < wrong).astype(np.uint8)
        matrix = count_pixels(pred, np.zeros(4, np.uint8), classes=2, ignore_label=255)
        counts.add(matrix, image=image)
    assert counts.image_of[0, 1] == 1 and counts.image_of[0, 0] == 0
    assert counts.total.matrix.tolist() == [[6, 6], [0, 0]]


def test_a_crop_holds_the_largest_region_and_errors_are_red() -> None:
    label, pred = np.zeros((200, 300), np.uint8), np.zeros((200, 300), np.uint8)
    label[190:, 280:], label[:5, :5], label[100, 100] = 1, 1, 255
    example = Example("p", 0, np.full((200, 300, 3), 90, np.uint8), label, pred)
    crop = example.around(1, 0)
    assert crop.label.shape == (96, 96) and (crop.label == 1).sum() == 200
    shown = errors(example, 2)
    assert (shown[195, 290] == ERROR).all() and (shown[100, 100] == 0).all()
    assert shown[50, 50].min() > 128 and shown[50, 50].max() == shown[50, 50].min()
    small = shrunk(example, 30)
    assert small.image.shape == (20, 30, 3) and small.pred.shape == (20, 30)


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here to show the page")
@pytest.mark.parametrize("width", [390, 1280])
def test_in_a_browser(tmp_path: Path, width: int) -> None:
    page = write(tmp_path, made_up([*BAD_NAMES, *(f"class {i}" for i in range(26))]))
    (tmp_path / "probe.html").write_text(page.replace("</body>", f"{PROBE}</body>"))
    (tmp_path / "frame.html").write_text(FRAME.replace("WIDTH", str(width)))
    profile, address = f"--user-data-dir={tmp_path / 'profile'}", (tmp_path / "frame.html").as_uri()
    done = subprocess.run(
        [CHROMIUM, *FLAGS, profile, "--window-size=1400,900", address],
        capture_output=True,
        text=True,
        timeout=60,
    )
    title = re.search(r"<title>probe,(\d+),(\d+),(\d+),(\d+)</title>", done.stdout)
    assert title, done.stderr
    images, broken, content, window = map(int, title.groups())
    assert (images, broken) == (page.count("<img"), 0)
    assert content <= window == width, f"{content} pixels wide in a window of {window}"
