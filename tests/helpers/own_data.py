"""Raw user data, and running tool/prepare_folder.py on it."""

from pathlib import Path

import numpy as np
from PIL import Image

from tests.conftest import RunTool, assert_one_sentence
from tests.helpers.raw_data import lines_of, write_ids, write_image
from util.data.list_file import read_list

RED, GREEN, BLUE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (0, 0, 0)


class Raw:
    """Raw data below a folder, and the tool run on it."""

    def __init__(self, root: Path, run_tool: RunTool) -> None:
        self.root, self.run_tool = root, run_tool

    def pair(self, image: str, mask: str, *ids: int) -> None:
        write_image(self.root / image)
        write_ids(self.root / mask, *(ids or (0, 1)))

    def masks(self, label: np.ndarray, *, count: int = 3, palette: list[int] | None = None) -> None:
        """Pairs 0, 1, ... of one label (H, W) or (H, W, 3)."""
        for i in range(count):
            write_image(self.root / f"images/{i}.jpg", size=label.shape[:2])
            file = Image.fromarray(label)
            if palette:
                file.putpalette(palette)
            (self.root / "masks").mkdir(exist_ok=True)
            file.save(self.root / f"masks/{i}.png")

    def prepare(
        self, *words: object, images: str = "images", masks: str = "masks", out: str = "mine"
    ) -> tuple[int, str, str]:
        folders = ("--images", self.root / images, "--masks", self.root / masks)
        places = ("--out", self.out(out), "--config", self.root.parent / "config")
        return self.run_tool("prepare_folder", *folders, *places, *words)

    def refused(self, *parts: str, words: tuple[object, ...] = (), **folders: str) -> None:
        code, _, err = self.prepare(*words, **folders)
        assert_one_sentence(code, err, *parts)

    def out(self, name: str = "mine") -> Path:
        return self.root.parent / "dataset" / name

    def images(self, *splits: str, out: str = "mine") -> list[str]:
        """Return the images of these lists without `images/`, after reading the lists."""
        for split in splits:
            read_list(self.out(out) / f"list/{split}.txt", self.out(out), has_labels=True)
        return [
            line.split(" labels/")[0][7:] for s in splits for line in lines_of(self.out(out), s)
        ]

    def label(self, name: str = "0", out: str = "mine") -> np.ndarray:
        return np.array(Image.open(next(self.out(out).glob(f"labels/**/{name}.png"))))
