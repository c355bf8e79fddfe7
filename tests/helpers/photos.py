"""Photos of streets with masks, as options of tool/prepare_folder.py."""

from pathlib import Path

from tests.helpers.raw_data import (
    write_image,
)

NAMES = [f"street {i}" for i in range(5)]  # with a space, which lists must support


RED, BLUE, BLACK = (200, 0, 0), (0, 0, 200), (0, 0, 0)


def options(raw: Path, *more: object) -> list[object]:
    folders = ["--images", raw / "photos", "--masks", raw / "masks"]
    top = raw.parent
    return [*folders, "--out", top / "dataset/mine", "--config", top / "config", *more]


def label_path(raw: Path, name: str) -> Path:
    return next((raw.parent / "dataset/mine/labels").glob(f"*/{name}.png"))


def names_of(raw: Path) -> list[str]:
    return (raw.parent / "dataset/mine_names.txt").read_text().splitlines()


def made(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def write_photos(root: Path) -> Path:
    for name in NAMES:
        write_image(root / f"photos/{name}.jpg", size=(6, 8))
    return root
