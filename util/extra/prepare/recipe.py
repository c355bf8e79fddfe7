"""Recipes for a prepared dataset: YAML files adapted to its images."""

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from string import Template

import numpy as np

from util.config import ROOT
from util.data.file import read_header
from util.error import DataError
from util.extra.parallel import available_cores
from util.extra.prepare.files import Item

LARGEST_CROP = 473  # as in the recipes of ADE20K and VOC 2012
LARGEST_BATCH = 8
MOST_WORKERS = 4
NETS = {  # network -> layers, initial weights
    "pspnet50": (50, "initmodel/resnet50_v1.pth"),
    "pspnet18": (18, "initmodel/resnet18_v1.pth"),
}


def recipes(
    config: Path,
    out: Path,
    name: str,
    *,
    lists: tuple[str, str],
    train: Sequence[Item],
    classes: int,
) -> dict[Path, str]:
    """Return the recipes (path -> YAML), with crop and scale from the median image size.

    `lists` names the training and the validation list. Raises DataError if a path holds the recipe
    of another dataset.
    """
    headers = [read_header(item.image) for item in train]
    height = int(np.median([header.height for header in headers]))
    width = int(np.median([header.width for header in headers]))
    root = os.path.abspath(out)
    if Path(root).is_relative_to(ROOT):
        root = os.path.relpath(root, ROOT)
    template = Template((ROOT / "config/template.txt").read_text(encoding="utf-8"))
    texts = {}
    for net, (layers, weight) in NETS.items():
        path = config / name / f"{name}_{net}.yaml"
        texts[path] = template.substitute(
            title=f"PSPNet{layers}",
            name=name,
            net=net,
            layers=layers,
            init_weight=weight,
            data_root=quoted(root),
            train_list=quoted(f"{root}/list/{lists[0]}.txt"),
            val_list=quoted(f"{root}/list/{lists[1]}.txt"),
            names_path=quoted(f"{root}_names.txt"),
            colors_path=quoted(f"{root}_colors.txt"),
            classes=classes,
            train=len(train),
            crop_h=crop_side(height),
            crop_w=crop_side(width),
            base_size=max(height, width),
            batch_size=min(LARGEST_BATCH, len(train)),
            workers=min(MOST_WORKERS, available_cores()),
        )
        if path.is_file() and f"data_root: {quoted(root)}\n" not in path.read_text("utf-8"):
            raise DataError(
                f"{path} is the recipe of another dataset called {name}: rename the last folder "
                "of --out, or choose another --config"
            )
    return texts


def quoted(text: str) -> str:
    """Quote a text for YAML unless it is safe; ` #` and `: `, for example, are not."""
    return text if re.fullmatch(r"[\w./-]+", text) else json.dumps(text, ensure_ascii=False)


def crop_side(side: int) -> int:
    """Return the largest 8k+1 that fits an image side, within 9..LARGEST_CROP."""
    return min(max((side - 1) // 8 * 8 + 1, 9), LARGEST_CROP)
