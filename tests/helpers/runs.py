"""What the tests read from a run's folder."""

import json
from pathlib import Path

import torch


def records(run: Path) -> list[dict]:
    """The lines of metrics.jsonl."""
    return [json.loads(line) for line in (run / "model/metrics.jsonl").open()]


def weights(path: Path) -> dict[str, torch.Tensor]:
    """The state dict of a checkpoint."""
    return torch.load(path, weights_only=True)["state_dict"]
