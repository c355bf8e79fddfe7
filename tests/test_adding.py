"""The table in FAQ.md on where to add things: follow each row in a copy of the project."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, command

pytestmark = pytest.mark.slow


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the project's files."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "util", "model", "tool", "config"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(lambda name: (ROOT / name).is_file(), listed.stdout.split()):
        (tmp_path / "copy" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / "copy" / name)
    return tmp_path / "copy"


def edit(path: Path, old: str, new: str) -> None:
    """Put `new` before the only `old` of a file."""
    text = path.read_text()
    assert text.count(old) == 1, (path, old)
    path.write_text(text.replace(old, new + old))


def run(copy: Path, tool: str, *words: object) -> str:
    done = command(sys.executable, f"tool/{tool}.py", *words, cwd=copy)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def test_a_key(copy: Path, tiny: Path, tmp_path: Path) -> None:
    edit(
        copy / "util/config/train_keys.py",
        "    sync_bn: bool",
        "    dropout: float = key(0.1, span=(0, 1), help='dropout of the classifier')\n",
    )
    edit(copy / "model/pspnet.py", "zoom_factor=cfg.zoom_factor,", "dropout=cfg.dropout, ")
    run(copy, "train", "--config", tiny, "TRAIN.dropout", 0.5)
    assert "  dropout: 0.5\n" in (tmp_path / "run/model/config.yaml").read_text()
    assert "TRAIN.dropout: 0.1 (0 to 1)\n    dropout of" in run(copy, "train", "--keys")
    done = command(
        sys.executable, "tool/train.py", "--config", tiny, "TRAIN.dropuot", "2", cwd=copy
    )
    assert "nearest: TRAIN.dropout" in done.stderr


def test_a_network(copy: Path, tiny: Path) -> None:
    (copy / "model/pyramid.py").write_text(
        "from model.pspnet import PSPNet\n\n\n"
        "class Pyramid(PSPNet):\n"
        "    def __init__(self, **settings):\n"
        "        super().__init__(bins=(2, 3), **settings)\n"
    )
    edit(copy / "model/build.py", "from model.pspnet import", "from model.pyramid import Pyramid\n")
    edit(copy / "model/build.py", '"psp": PSPNet', '"pyramid": Pyramid, ')
    run(copy, "train", "--config", tiny, "TRAIN.arch", "pyramid")
    assert "Eval result: mIoU" in run(copy, "test", "--config", tiny, "TRAIN.arch", "pyramid")


def test_a_backbone_depth(copy: Path, tiny: Path) -> None:
    edit(copy / "model/resnet.py", "    18: (BasicBlock", "    10: (BasicBlock, (1, 1, 1, 1)),\n")
    run(copy, "train", "--config", tiny, "TRAIN.layers", 10)
    assert "Eval result: mIoU" in run(copy, "test", "--config", tiny, "TRAIN.layers", 10)


def test_a_dataset(copy: Path, tiny: Path, tmp_path: Path) -> None:
    (copy / "config/mine").mkdir()
    shutil.copy(tiny, copy / "config/mine/mine_pspnet18.yaml")
    (copy / "dataset").mkdir()
    (copy / "dataset/mine_names.txt").write_text("left\nright\nmiddle\n")
    (copy / "dataset/mine_colors.txt").write_text("200 60 60\n60 200 60\n60 60 200\n")
    words = ["names_path", copy / "dataset/mine_names.txt"]
    words += ["colors_path", copy / "dataset/mine_colors.txt"]
    done = command("sh", "tool/train.sh", "mine", "pspnet18", *words, cwd=copy)
    assert done.returncode == 0, done.stderr
    assert "middle" in done.stdout and "Eval result: mIoU" in done.stdout


def test_an_augmentation(copy: Path, tiny: Path, tmp_path: Path) -> None:
    edit(
        copy / "util/data/transform.py",
        "def train_transform(",
        "@dataclass(frozen=True)\n"
        "class Darken:\n"
        "    low: float\n\n"
        "    def draw(self, rng):\n"
        "        return rng.uniform(self.low, 1)\n\n"
        "    def apply(self, image, label, drawn):\n"
        "        open(ROOT_OF_TEST + f'/{drawn}', 'w').close()\n"
        "        return image * np.float32(drawn), label\n\n\n",
    )
    (tmp_path / "drawn").mkdir()
    path = copy / "util/data/transform.py"
    text = path.read_text().replace("ROOT_OF_TEST", repr(str(tmp_path / "drawn")))
    old = "            Crop(*crop, ignore_label),\n"
    assert text.count(old) == 1
    path.write_text(text.replace(old, old + "            Darken(0.5),\n"))
    for way in ("fused", "stepwise"):
        save = tmp_path / way / "model"
        run(copy, "train", "--config", tiny, "TRAIN.augment", way, "TRAIN.save_path", save)
    drawn = [float(path.name) for path in (tmp_path / "drawn").iterdir()]
    assert len(drawn) == 4 and all(0.5 <= value < 1 for value in drawn)  # with both augmentations
