"""Splitting pairs into lists: by the user's folders, or at random."""

import re
from argparse import Namespace
from collections.abc import Mapping, Sequence

import numpy as np

from util.error import DataError, UserError
from util.extra.prepare.files import Item, distinct
from util.extra.prepare.pairs import Pair

VAL_FRACTION = 0.2
_SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
_NEUTRAL = r"set|data|split|images?|imgs?|photos?|(19|20)\d\d"  # allowed beside a split's name


def split_of(folder: str) -> str:
    """Return train, val or test for a name such as `train2017` or `Val_images`, else ''."""
    words = re.findall(r"[^\W\d_]+|\d+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", folder))
    words = [re.sub(r"(set|data|images)$", "", w.lower()) or w.lower() for w in words]
    others = [w for w in words if not re.fullmatch(_NEUTRAL, w)]
    return _SPLITS.get(others[0], "") if len(others) == 1 else ""


def similar_split(folder: str) -> str:
    """Return the first split among the words of a name such as `my_train`, else ''."""
    words = re.findall(r"[^\W\d_]+", folder.lower().replace("trainval", "train"))
    return next((_SPLITS[w] for w in words if w in _SPLITS), "")


def locate(name: str) -> tuple[str, str, str]:
    """Return the split of an image a/train/b, the folder that sets it, and the name without it.

    Without such a folder, return '', the first folder (or '') and the name.
    """
    *folders, stem = name.split("/")
    for i, folder in enumerate(folders):
        if split := split_of(folder):
            return split, folder, "/".join([*folders[:i], *folders[i + 1 :], stem])
    return "", folders[0] if folders else "", name


def split_pairs(pairs: Sequence[Pair], options: Namespace) -> dict[str, list[Pair]]:
    """Return list name -> pairs: the user's folders, K folds, or a random validation part.

    Raises UserError if folders that look like a split cannot be used as one, unless --val-fraction
    or --folds ask for another.
    """
    found: dict[str, list[Pair]] = {}
    for pair in pairs:
        found.setdefault(locate(pair.name)[0], []).append(pair)
    if options.val_fraction is None and not options.folds:
        _check_folders(found, options)
        if {"train", "val"} <= found.keys():
            print("split: from the folders train/ and val/ (--val-fraction makes a new one)")
            return {split: found[split] for split in ("test", "train", "val") if split in found}
    test = found.get("test", []) if len(found) > 1 else []
    splits = {"test": test} if test else {}
    rest = [pair for pair in pairs if not (test and locate(pair.name)[0] == "test")]
    if len(rest) < 2:
        raise DataError(
            f"{options.images} has {len(rest)} pair outside test/, but at least 2 are needed, to "
            "train and to validate: add pairs, or rename test/"
        )
    order = np.random.default_rng(options.seed).permutation(len(rest))
    if options.folds > len(rest):
        raise UserError(
            f"--folds must be at most {len(rest)}, the number of pairs, got {options.folds}"
        )
    parts = {f"fold{k + 1}_": order[k :: options.folds] for k in range(options.folds)}
    if not parts:
        wanted = round((options.val_fraction or VAL_FRACTION) * len(rest))
        parts = {"": order[: min(max(1, wanted), len(rest) - 1)]}
        print(f"split: {len(parts[''])} of {len(rest)} pairs for validation, chosen at random")
    for prefix, val in parts.items():
        chosen = set(val.tolist())
        splits[f"{prefix}train"] = [pair for i, pair in enumerate(rest) if i not in chosen]
        splits[f"{prefix}val"] = [pair for i, pair in enumerate(rest) if i in chosen]
    return splits


def _check_folders(found: Mapping[str, Sequence[Pair]], options: Namespace) -> None:
    """Raise UserError if some folders look like a split, but it is unclear where the rest goes.

    A single folder, and train/ with test/ but without val/, leave no doubt.
    """
    shown = {split: locate(found[split][0].name)[1] for split in sorted(found) if split}
    odd = found.get("", [])
    if not shown:
        for pair in odd:
            for folder in pair.name.split("/")[:-1]:
                if split := similar_split(folder):
                    shown.setdefault(split, folder)
        if len(shown) < 2:
            return
        what, fix = "these are not called train/ and val/", "rename them"
    elif odd:
        folder = locate(odd[0].name)[1]
        what = f"{f'{folder}/' if folder else odd[0].image} belongs to no part of the split"
        fix = f"move {'it (and its masks)' if folder else 'that image (and its mask)'}"
    elif "train" not in found and len(found) > 1:
        what, fix = "no train/", "rename one of them"
    else:
        return
    folders = " and ".join(f"{folder}/" for folder in shown.values())
    raise UserError(
        f"{options.images} has {folders}, but {what}: {fix}, or ask for a new random split with "
        "--val-fraction or --folds"
    )


def to_items(split: str, pairs: Sequence[Pair], label_folder: str) -> list[Item]:
    """Convert pairs to items images/<split>/<name>, dropping the split's folder from the name.

    Raises DataError if two images would get the same name.
    """
    folder = "all" if split.startswith("fold") else split
    items = []
    for pair in pairs:
        of, _, below = locate(pair.name)
        name = below if of == folder else pair.name
        image, mask = f"images/{folder}/{name}{pair.image.suffix}", next(iter(pair.masks.values()))
        items.append(Item(pair.image, image, mask, f"{label_folder}/{folder}/{name}.png"))
    return distinct(items)
