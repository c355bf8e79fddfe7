"""The commands of dataset/README.md for annotation tools, from their converters' masks onwards.

The archives in tests/exports hold four scenes drawn in labelme 6.3.1, a car above the road. voc.zip
was converted as the page says, by labelme2coco 0.2.6 and datumaro 1.13.12; cvat.zip is what CVAT's
exporter of 'Segmentation mask 1.1' (the same datumaro) makes of them.
"""

import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import ROOT
from tests.helpers.readme_commands import blocks
from util.data.image import read_label
from util.palette import load_names


def commands(mark: str) -> str:
    (block,) = (text for found, text in blocks("dataset/README.md") if found == mark)
    return block


@pytest.mark.parametrize(
    ("archive", "mark", "names"),
    [
        ("cvat", "needs data: cvat", ["background", "car", "road", "tree"]),
        ("voc", "needs data: coco", ["background", "road", "car", "tree"]),
    ],
)
def test_an_export_becomes_a_dataset(
    tmp_path: Path, archive: str, mark: str, names: list[str]
) -> None:
    with zipfile.ZipFile(ROOT / f"tests/exports/{archive}.zip") as file:
        file.extractall(tmp_path / archive)
    lines = [line for line in commands(mark).splitlines() if line.startswith(("sed", "python"))]
    assert len(lines) == 2
    script = "\n".join(lines).replace("python tool", f"{sys.executable} {ROOT}/tool")
    script += f" --config {tmp_path}/config"
    done = subprocess.run(["sh", "-ec", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = load_names(str(tmp_path / "dataset/mine_names.txt"), 4)
    assert found == names
    pairs = [
        line.split()
        for split in ("train", "val")
        for line in (tmp_path / f"dataset/mine/list/{split}.txt").read_text().splitlines()
    ]
    assert len(pairs) == 4
    for image, label in pairs:
        ids = read_label(tmp_path / "dataset/mine" / label)
        assert (tmp_path / "dataset/mine" / image).is_file()
        assert found[ids[70, 3]] == "road" and found[ids[2, 2]] == "background"
        if "p0" in label:  # the first scene has a car and a tree
            assert (found[ids[50, 20]], found[ids[20, 84]]) == ("car", "tree")
            assert np.unique(ids).tolist() == [0, 1, 2, 3]
