"""What the tests read from a run's folder, or write there."""

import json
from pathlib import Path

import torch

from model import build_model
from util.config import load_config
from util.training.weight_file import save_atomically


def records(run: Path) -> list[dict]:
    """The lines of metrics.jsonl."""
    return [json.loads(line) for line in (run / "model/metrics.jsonl").open()]


def weights(path: Path) -> dict[str, torch.Tensor]:
    """The state dict of a checkpoint."""
    return torch.load(path, weights_only=True)["state_dict"]


def with_weights(config: Path) -> Path:
    """The config of a run, which now has a checkpoint: of random weights, of epoch 1."""
    torch.manual_seed(3)
    cfg = load_config(config)
    path = Path(cfg.save_path, "train_epoch_1.pth")
    path.parent.mkdir(parents=True)
    save_atomically(path, {"state_dict": build_model(cfg).state_dict()})
    return config
