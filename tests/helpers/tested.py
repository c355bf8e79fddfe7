"""Testing a network with random weights, and reading the results."""

import json
import shutil
from pathlib import Path

import numpy as np

from tests.helpers.runs import with_weights

IMAGES = 12


def words(config: Path, folder: Path, *more: object) -> list[object]:
    return ["--config", config, "TEST.save_folder", folder, "print_freq", 1, *more]


def scores(folder: Path) -> dict:
    """Read scores.json without timings."""
    content = json.loads((folder / "scores.json").read_text())
    for name in ("seconds", "images_per_second"):
        assert content["protocol"].pop(name) > 0
    return content


def assert_same_results(a: Path, b: Path) -> None:
    assert scores(a) == scores(b)
    with np.load(a / "confusion.npz") as one, np.load(b / "confusion.npz") as two:
        assert one.files == two.files and one["images"].tolist() == two["images"].tolist()
        for name in one.files:
            np.testing.assert_array_equal(one[name], two[name])
    names = [
        sorted(p.relative_to(f).as_posix() for p in f.rglob("*") if p.suffix in (".png", ".part"))
        for f in (a, b)
    ]
    assert names[0] == names[1] and len(names[0]) == 3 * IMAGES
    for name in names[0]:
        assert (a / name).read_bytes() == (b / name).read_bytes(), name


def with_cities(config: Path) -> Path:
    """Add a checkpoint with random weights and a longer test list, with a folder per city."""
    data, lines = config.parent / "data", []
    for i in range(IMAGES):
        image = Path("images", ("ulm", "bonn")[i % 2], f"ulm_000000_{i:06}_leftImg8bit.png")
        (data / image).parent.mkdir(exist_ok=True)
        shutil.copy(data / f"images/p{i % 4}.png", data / image)
        lines.append(f"{image} labels/p{i % 4}.png")
    (data / "val.txt").write_text("\n".join(lines))
    return with_weights(config)
