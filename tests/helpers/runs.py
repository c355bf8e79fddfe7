"""Reading from and writing to the folder of a run."""

import json
from pathlib import Path

import torch

from model import build_model
from util.config import load_config
from util.training.weight_file import save_atomically


def records(run: Path) -> list[dict]:
    """Read metrics.jsonl."""
    return [json.loads(line) for line in (run / "model/metrics.jsonl").open()]


def weights(path: Path) -> dict[str, torch.Tensor]:
    """Load the state dict of a checkpoint."""
    return torch.load(path, weights_only=True)["state_dict"]


def with_weights(config: Path) -> Path:
    """Save a checkpoint with random weights for epoch 1; return the config."""
    torch.manual_seed(3)
    cfg = load_config(config)
    path = Path(cfg.save_path, "train_epoch_1.pth")
    path.parent.mkdir(parents=True)
    save_atomically(path, {"state_dict": build_model(cfg).state_dict()})
    return config
