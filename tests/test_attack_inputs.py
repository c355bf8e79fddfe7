"""Files damaged or changed at random, from fixed seeds, are refused in a sentence or work."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model.identify import identify
from tests.conftest import RunTool
from tests.helpers.runs import with_weights
from tests.helpers.small_run import SmallRun
from tool.convert_weights import layout
from util.config import load_config
from util.data.label_map import label_map_of
from util.data.list_file import read_list
from util.data.load import load
from util.error import DataError, UserError
from util.training.checkpoint import Checkpoint
from util.training.resume import check_numbers, restore_state
from util.training.weight_file import load_file, load_weights, state_dict_of

Random = np.random.Generator


def flip(content: bytes, rng: Random) -> bytes:
    """Some bytes of the first kilobyte, or of all, are others."""
    broken = bytearray(content)
    for place in rng.integers(0, min(len(broken), rng.choice([64, 1024, 2**30])), 4):
        broken[place] = rng.integers(256)
    return bytes(broken)


def declare_huge(content: bytes, rng: Random) -> bytes:
    """A PNG that says it has 2 thousand million pixels."""
    return content[:16] + (2**16 - 1).to_bytes(4, "big") * 2 + content[24:]


DAMAGES: dict[str, Callable[[bytes, Random], bytes]] = {
    "cut": lambda content, rng: content[: rng.integers(1, len(content))],
    "flipped": flip,
    "empty": lambda content, rng: b"",
    "doubled": lambda content, rng: content + content,
    "text": lambda content, rng: b"image of a cat\n" * 9,
    "zeros": lambda content, rng: bytes(len(content)),
    "huge": declare_huge,
}


def damaged_sets(tiny: Path) -> Any:
    """Damage one file of the dataset in each way, and mend it again."""
    data = tiny.parent / "data"
    for number, (name, damage) in enumerate(DAMAGES.items()):
        for seed in range(12 if name == "flipped" else 2):
            rng = np.random.default_rng((number, seed))
            path = data / ("images", "labels")[seed % 2] / f"p{rng.integers(4)}.png"
            whole = path.read_bytes()
            path.write_bytes(damage(whole, rng))
            yield f"{name} {seed}", path
            path.write_bytes(whole)


def test_check_data_finds_what_training_would_refuse(tiny: Path, run_tool: RunTool) -> None:
    cfg = load_config(tiny)
    label_map = label_map_of(cfg)
    for what, _ in damaged_sets(tiny):
        code, out, err = run_tool("check_data", "--config", tiny)
        assert code in (0, 1) and not err, (what, err)
        refused = ""
        for sample in read_list(cfg.train_list, cfg.data_root, has_labels=True):
            try:
                load(sample, label_map)
            except DataError as error:
                refused = str(error)
        assert not refused or code == 1, (what, refused, out)


@pytest.mark.slow
@pytest.mark.parametrize("tool", ["train", "test", "demo", "browse_data", "prepare_folder"])
def test_damaged_images_end_in_a_sentence(
    tiny: Path, tmp_path: Path, run_tool: RunTool, tool: str
) -> None:
    data = tmp_path / "data"
    config = ["--config", with_weights(tiny)]
    for number, (what, path) in enumerate(damaged_sets(tiny)):
        out = tmp_path / f"out{number}"
        words = {
            "train": [*config, "TRAIN.save_path", out],
            "test": [*config, "TEST.save_folder", out],
            "demo": [*config, "--image", path, "--output", out],
            "browse_data": [*config, "--output", out.with_suffix(".png")],
            "prepare_folder": [
                *("--images", data / "images", "--masks", data / "labels"),
                *("--out", out, "--config", out / "config"),
            ],
        }[tool]
        code, _, err = run_tool(tool, *words)
        lines = [line for line in err.splitlines() if not line.startswith("warning: ")]
        assert code in (0, 2) and len(lines) == (code == 2), (what, err)
        if code == 2:
            assert path.name in err, (what, err)


# Checkpoints --------------------------------------------------------------------------------------

ODD = [
    *(None, True, -1, 0, 2**70, 1e300, float("nan"), "x" * 1000, b"x", [], {}, [1], {"a": 1}),
    *({1: 2}, (), torch.tensor(0.0), torch.tensor([1]), torch.zeros(2, 3), torch.zeros(0)),
    *(torch.full((3,), torch.nan), torch.zeros(3, dtype=torch.complex64)),
    *(torch.zeros(3, dtype=torch.bool), torch.full((1,), 1e300, dtype=torch.float64)),
]


def tamper(content: dict, rng: Random) -> str:
    """Change, remove or add an entry somewhere in nested dictionaries and lists; says where."""
    place, where = content, []
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = keys[rng.integers(len(keys))]
        where.append(str(key))
        below = place[key]
        if isinstance(below, dict | list) and len(below) and rng.random() < 0.85:
            place = below
            continue
        kind, odd = rng.integers(10), ODD[rng.integers(len(ODD))]
        if kind == 0 and isinstance(place, dict):
            del place[key]
        elif kind == 1 and isinstance(place, dict):
            place[("extra", 7, None)[rng.integers(3)]] = odd
        else:
            place[key] = odd
        return f"{'/'.join(where)}: {kind} {odd!r:.60}"


SEEDS = [range(40), pytest.param(range(40, 500), marks=pytest.mark.slow)]


@pytest.mark.parametrize("seeds", SEEDS)
def test_tampered_checkpoints_are_refused_or_work(tiny: Path, seeds: range) -> None:
    run = SmallRun(tiny, channels_last=False)
    for seed in seeds:
        content = run.content()
        what = tamper(content, np.random.default_rng(seed))
        again = SmallRun(tiny, channels_last=False)
        try:
            check_numbers(Checkpoint("c.pth", content))
            state = state_dict_of(content, source="c.pth")
            load_weights(again.state.model, state, source="c.pth")
            restore_state(again.state, again.cfg, Checkpoint("c.pth", content), again.order)
        except UserError as error:
            assert len(str(error)) < 2000, what
            continue
        again.step()
        assert all(value.isfinite().all() for value in again.weights()), what


@pytest.mark.parametrize("seeds", SEEDS)
def test_tampered_weights_are_identified_and_converted_or_refused(tiny: Path, seeds: range) -> None:
    state = SmallRun(tiny).state.model.state_dict()
    whole = {f"module.{name}": value for name, value in state.items()}
    for seed in seeds:
        content = {"epoch": 1, "state_dict": dict(whole), "optimizer": {}}
        what = tamper(content, np.random.default_rng(seed))
        try:
            state = state_dict_of(content, source="c.pth")
            assert all(isinstance(value, str) for value in identify(state).values()), what
            assert layout(content, state, is_published=True).keys() >= {"state_dict"}, what
        except UserError as error:
            assert len(str(error)) < 2000, what


@pytest.mark.parametrize("is_zip", [True, False])
def test_weight_files_with_other_bytes_are_refused_or_unchanged(
    tmp_path: Path, is_zip: bool
) -> None:
    path, value = tmp_path / "w.pth", torch.arange(500.0)
    torch.save({"w": value, "epoch": 3}, path, _use_new_zipfile_serialization=is_zip)
    whole = path.read_bytes()
    for seed in range(300):
        path.write_bytes(flip(whole, np.random.default_rng(seed)))
        try:
            content = load_file(path)
        except UserError as error:
            assert str(path) in str(error)
            continue
        assert isinstance(content, dict)
        if is_zip and isinstance(content.get("w"), torch.Tensor):  # its parts have checksums
            assert torch.equal(content["w"], value), seed
