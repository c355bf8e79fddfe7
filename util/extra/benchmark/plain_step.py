"""A training step as in a short script: float32, NCHW, upsampled logits, mean losses."""

import torch
import torch.nn.functional as F

from model import build_model
from util.config import Config
from util.extra.benchmark.step import random_batch


class PlainStep:
    """A network in training, with a fixed batch of random numbers."""

    def __init__(self, cfg: Config, device: torch.device) -> None:
        self.cfg, self.device = cfg, device
        self.network = build_model(cfg).to(device).train()
        self.optimizer = torch.optim.SGD(
            self.network.param_groups(),
            lr=cfg.base_lr,
            momentum=cfg.momentum,
            weight_decay=cfg.weight_decay,
        )
        self.image, self.label = random_batch(cfg, pinned=device.type == "cuda")

    def step(self) -> float:
        """Run a step and return its loss."""
        image, label = self.image.to(self.device), self.label.to(self.device)
        main, aux = (
            F.cross_entropy(logits, label, ignore_index=self.cfg.ignore_label)
            for logits in self.network(image)
        )
        loss = main + self.cfg.aux_weight * aux
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()
