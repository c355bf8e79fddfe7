"""Training steps of a small network on the tiny recipe, without the trainer."""

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from tests.helpers.small_net import SmallNet
from util.config import Config, load_config
from util.data.dataset import build_loader
from util.distributed import Process
from util.training.checkpoint import Checkpoint
from util.training.loss import CrossEntropy, PixelLoss, SegmentationLoss
from util.training.nonfinite import NonfiniteCheck
from util.training.resume import check_numbers, restore_state
from util.training.state import State, checkpoint_content, order_of, start_state
from util.training.step import StepResult, train_mode, train_step

PLAIN = CrossEntropy(255)


class SmallRun:
    """A state and its steps; the data of a step depends only on its number."""

    def __init__(self, tiny: Path, **values: object) -> None:
        self.cfg: Config = replace(load_config(tiny), **values)
        self.process = Process()
        loader = build_loader(self.cfg, is_training=True)
        self.order = order_of(self.cfg, loader.data.samples)
        torch.manual_seed(0)
        network = SmallNet(dropout=0.1)
        self.state: State = start_state(
            self.cfg, self.process, network, steps_per_epoch=len(loader)
        )
        self.check = NonfiniteCheck(self.cfg, self.process, loader, amp=self.state.amp)
        train_mode(self.state.model, freeze_bn=self.cfg.freeze_bn)

    def step(self, main: PixelLoss = PLAIN) -> StepResult:
        generator = torch.Generator().manual_seed(self.state.step)
        image = torch.randn(2, 3, 33, 33, generator=generator)
        label = torch.randint(0, 3, (2, 33, 33), generator=generator)
        criterion = SegmentationLoss(main, PLAIN, 0.4)
        result = train_step(self.cfg, self.process, self.state, criterion, image, label)
        self.check.add(self.state.step - 1, result.losses[0], result.left_out)
        return result

    def content(self) -> dict:
        """Return the checkpoint of the state, saved and loaded again."""
        path = Path(self.cfg.save_path).with_suffix(".pth")
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(checkpoint_content(self.state, self.cfg, self.order), path)
        return torch.load(path, weights_only=True)

    def restore(self, content: dict) -> None:
        """Restore a state from the content of a checkpoint c.pth."""
        self.state.model.load_state_dict(content["state_dict"])
        check_numbers(Checkpoint("c.pth", content))
        restore_state(self.state, self.cfg, Checkpoint("c.pth", content), self.order)

    def weights(self) -> list[Tensor]:
        return [p.detach().clone() for p in self.state.model.parameters()]

    def buffers(self) -> list[tuple[Tensor, dict[str, Tensor]]]:
        """Return (parameter, its optimizer buffers)."""
        return list(self.state.optimizer.state.items())

    def everything(self) -> dict[str, Tensor]:
        """Copy weights, BatchNorm statistics and optimizer buffers."""
        found = dict(self.state.model.state_dict())
        for i, (_, buffers) in enumerate(self.buffers()):
            found |= {f"{name} {i}": buffer for name, buffer in buffers.items()}
        return {name: value.clone() for name, value in found.items()}
