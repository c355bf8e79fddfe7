"""A valid dataset, ways to corrupt it, and applying the fixes that the dataset check prints."""

import json
import re
import subprocess
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from tests.conftest import RunTool

HEIGHT, WIDTH = 24, 32
COLORS = np.array([[128, 0, 0], [0, 128, 0], [0, 0, 128]])


class Data:
    """A valid dataset of `train` and `val` pairs, to be corrupted."""

    def __init__(self, root: Path, *, train: int = 4, val: int = 2) -> None:
        self.root = root
        self.words: list[str] = []
        self.config = root / "config.yaml"
        rng = np.random.default_rng(0)
        for split, count in (("train", train), ("val", val)):
            (root / split).mkdir(parents=True)
            for i in range(count):
                noise = rng.integers(0, 255, (HEIGHT, WIDTH, 3)).astype(np.uint8)
                Image.fromarray(noise).save(root / split / f"{i}.jpg")
                self.write_label(f"{split}/{i}.png", self.ids(3))
            lines = [f"{split}/{i}.jpg {split}/{i}.png\n" for i in range(count)]
            (root / f"{split}.txt").write_text("".join(lines))
        data = {"data_root": str(root), "classes": 3}
        data |= {f"{s}_list": str(root / f"{s}.txt") for s in ("train", "val")}
        self.config.write_text(yaml.safe_dump({"DATA": data}))

    @staticmethod
    def ids(classes: int, first: int = 0) -> np.ndarray:
        """Draw a label (H, W) uint8 with ids first..first+classes-1."""
        return (np.arange(HEIGHT * WIDTH) % classes + first).astype(np.uint8).reshape(HEIGHT, WIDTH)

    def write_label(self, name: str, label: np.ndarray) -> None:
        Image.fromarray(label).save(self.root / name)

    def write_all_labels(self, label: np.ndarray) -> None:
        for path in self.root.glob("*/*.png"):
            Image.fromarray(label).save(path)

    def add_line(self, split: str, line: str) -> None:
        with (self.root / f"{split}.txt").open("a") as file:
            file.write(line + "\n")

    def copy(self, source: str, target: str) -> None:
        (self.root / target).write_bytes((self.root / source).read_bytes())

    def check(self, run_tool: RunTool, *words: str) -> tuple[int, dict, str]:
        """Run the dataset check; return (exit code, JSON, text)."""
        found = self.root / "found.json"
        code, out, err = run_tool(
            "check_data", "--config", self.config, "--json", found, *self.words, *words
        )
        assert code in (0, 1), err
        return code, json.loads(found.read_text()), out


def follow(cure: str) -> list[str]:
    """Apply a printed fix: run its command and return the overrides it names."""
    command = re.search(r"\(cat .*|printf .*|sed -i .*", cure)
    if command:
        words = command.group().split(", which")[0]
        subprocess.run(["sh", "-c", words], check=True)
    line = re.match(r"(DATA\.\w+): (\[.*?\]|\{.*?\}|[^,]+)", cure)
    return list(line.groups()) if line else []


def lose_a_image(data: Data) -> None:
    (data.root / "train/2.jpg").unlink()


def lose_the_root(data: Data) -> None:
    data.words = ["DATA.data_root", str(data.root / "train")]


def cut_a_jpeg(data: Data) -> None:
    path = data.root / "train/2.jpg"
    path.write_bytes(path.read_bytes()[:-300])


def cut_a_png(data: Data) -> None:
    noise = np.random.default_rng(1).integers(0, 3, (HEIGHT, WIDTH)).astype(np.uint8)
    data.write_label("train/2.png", noise)
    path = data.root / "train/2.png"
    path.write_bytes(path.read_bytes()[:-80])


def empty_a_file(data: Data) -> None:
    (data.root / "train/2.png").write_bytes(b"")


def write_text(data: Data) -> None:
    (data.root / "train/2.jpg").write_text("not an image")


def shrink_a_label(data: Data) -> None:
    data.write_label("train/2.png", data.ids(3)[:-1])


def repeat_a_line(data: Data) -> None:
    data.add_line("train", "train/2.jpg train/2.png")


def leak_a_image(data: Data) -> None:
    # Same pixels, different bytes.
    Image.open(data.root / "train/2.jpg").save(data.root / "val/leak2.png")
    data.add_line("val", "val/leak2.png val/0.png")
    data.copy("val/0.png", "val/own.png")
    path = data.root / "val.txt"
    path.write_text(path.read_text().replace("leak2.png val/0.png", "leak2.png val/own.png"))


def share_a_label(data: Data) -> None:
    Image.new("RGB", (WIDTH, HEIGHT)).save(data.root / "train/two.jpg")
    data.add_line("train", "train/two.jpg train/2.png")


def void_a_label(data: Data) -> None:
    data.write_label("train/2.png", np.full((HEIGHT, WIDTH), 255, np.uint8))


def forget_a_class(data: Data) -> None:
    data.write_all_labels(data.ids(2))


def number_void_otherwise(data: Data) -> None:
    label = data.ids(3)
    label[0, :7] = 11
    data.write_label("train/2.png", label)


def save_masks(data: Data) -> None:
    data.words = ["DATA.classes", "2"]
    data.write_all_labels((data.ids(2) * 255).astype(np.uint8))


def save_one_mask(data: Data) -> None:
    data.words = ["DATA.classes", "2"]
    data.write_all_labels(data.ids(2))
    data.write_label("train/2.png", (data.ids(2) * 255).astype(np.uint8))


def save_masks_with_other_ignore_label(data: Data) -> None:
    save_masks(data)
    data.words += ["TRAIN.ignore_label", "65535"]


def save_cityscapes_ids(data: Data) -> None:
    data.words = ["DATA.classes", "19"]
    data.write_all_labels(data.ids(34))


def save_ade20k_ids(data: Data) -> None:
    data.words = ["DATA.classes", "150"]
    data.write_all_labels(data.ids(151))


def start_at_one(data: Data) -> None:
    data.write_all_labels(data.ids(3, first=1))


def know_colors(data: Data) -> Path:
    path = data.root.parent / "colors.txt"
    np.savetxt(path, COLORS, fmt="%d")
    data.words = ["TEST.colors_path", str(path)]
    return path


def save_colors(data: Data) -> None:
    know_colors(data)
    data.write_all_labels(COLORS[data.ids(3)].astype(np.uint8))


def save_colors_and_white(data: Data) -> None:
    save_colors(data)
    label = COLORS[data.ids(3)].astype(np.uint8)
    label[:2] = 255
    data.write_label("train/2.png", label)


def turn_colors_gray(data: Data) -> None:
    know_colors(data)
    gray = Image.fromarray(COLORS[data.ids(3)].astype(np.uint8)).convert("L")
    data.write_all_labels(np.array(gray))


def forget_an_id_in_the_map(data: Data) -> None:
    data.words = ["DATA.classes", "2", "DATA.label_map", "{0: 0, 1: 1}"]


def forget_a_color_in_the_map(data: Data) -> None:
    save_colors(data)
    path = know_colors(data)
    data.words = ["DATA.label_map", str(path)]
    label = COLORS[data.ids(3)].astype(np.uint8)
    label[:2] = 224
    data.write_label("train/2.png", label)


def name_too_few(data: Data) -> None:
    (data.root.parent / "names.txt").write_text("a\nb\n")
    data.words = ["TEST.names_path", str(data.root.parent / "names.txt")]
    data.write_all_labels(data.ids(2))


def color_too_few(data: Data) -> None:
    path = know_colors(data)
    np.savetxt(path, COLORS[:2], fmt="%d")
    data.write_all_labels(data.ids(2))


FAULTS = [
    ("missing", lose_a_image, "train/2.jpg"),
    ("missing", lose_the_root, "line 1: no image"),
    ("truncated", cut_a_jpeg, "train/2.jpg"),
    ("truncated", cut_a_png, "train/2.png"),
    ("empty-file", empty_a_file, "train/2.png"),
    ("unreadable", write_text, "train/2.jpg"),
    ("size-mismatch", shrink_a_label, "train/2.png is 32x23"),
    ("duplicate-line", repeat_a_line, "train.txt line 5: "),
    ("train-val-leak", leak_a_image, "val/leak2.png"),
    ("shared-label", share_a_label, "train/2.png"),
    ("all-void", void_a_label, "train/2.png"),
    ("absent-class", forget_a_class, "2 class 2"),
    ("void-id", number_void_otherwise, "train/2.png: 11 (7 pixels)"),
    ("mask-0-255", save_masks, "train/2.png"),
    ("mask-0-255", save_one_mask, "train/2.png"),
    ("mask-0-255", save_masks_with_other_ignore_label, "train/2.png"),
    ("cityscapes-ids", save_cityscapes_ids, "train/2.png: 19 "),
    ("ade20k-ids", save_ade20k_ids, "train/2.png: 150 "),
    ("off-by-one", start_at_one, "train/2.png: 3 "),
    ("colour-label", save_colors, "train/2.png"),
    ("colour-label", save_colors_and_white, "train/2.png"),
    ("colours-as-gray", turn_colors_gray, "train/2.png: 15 "),
    ("unnamed-ids", forget_an_id_in_the_map, "train/2.png: 2 "),
    ("unnamed-colours", forget_a_color_in_the_map, "train/2.png: 224 224 224 (64 pixels)"),
    ("names", name_too_few, "names.txt"),
    ("colours", color_too_few, "colors.txt"),
]
