"""The training loss: cross entropy of both heads over labelled pixels, weighted or on hard ones."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

PixelLoss = Callable[[Tensor, Tensor], Tensor]  # logits (N, C, h, w), label (N, h, w) -> mean


@dataclass(frozen=True)
class CrossEntropy:
    """Mean over the pixels that are not `ignore_label`, 0 where there is none; in float32.

    With `weights` (C,) it is the mean weighted by those of the labels' classes.
    """

    ignore_label: int
    weights: Tensor | None = None

    def __call__(self, logits: Tensor, label: Tensor) -> Tensor:
        loss = F.cross_entropy(
            logits.float(),
            label,
            weight=self.weights,
            ignore_index=self.ignore_label,
            reduction="sum",
        )
        labelled = label != self.ignore_label
        if self.weights is None:
            return loss / labelled.sum().clamp(min=1)
        return loss / _over(_weights_of(label, labelled, self.weights).sum())


@dataclass(frozen=True)
class OhemCrossEntropy:
    """Cross entropy on hard pixels alone (online hard example mining, Shrivastava et al. 2016).

    Kept are the labelled pixels whose class gets a probability of at most `threshold`; where those
    are fewer than `min_kept`, the `min_kept` hardest ones of the batch (ties: all of them).
    """

    ignore_label: int
    threshold: float
    min_kept: int
    weights: Tensor | None = None

    def __call__(self, logits: Tensor, label: Tensor) -> Tensor:
        loss = F.cross_entropy(
            logits.float(), label, ignore_index=self.ignore_label, reduction="none"
        )
        labelled = label != self.ignore_label
        with torch.no_grad():
            # Ignored pixels come last; where they are among the hardest, all labelled ones are.
            probability = torch.where(labelled, torch.exp(-loss), torch.inf).flatten()
            rank = min(self.min_kept, probability.numel())
            limit = probability.kthvalue(rank).values.clamp(min=self.threshold)
            kept = labelled & (probability.view_as(loss) <= limit)
            weights = kept.float()
            if self.weights is not None:
                weights = _weights_of(label, kept, self.weights)
        return (loss * weights).sum() / _over(weights.sum())


def _weights_of(label: Tensor, counted: Tensor, weights: Tensor) -> Tensor:
    """Each pixel's class weight, 0 where it is not counted: (N, h, w)."""
    return weights[torch.where(counted, label, 0)] * counted


def _over(total: Tensor) -> Tensor:
    """A sum of weights to divide by: 1 where it is 0, and the loss with it."""
    return torch.where(total > 0, total, 1)


@dataclass(frozen=True)
class SegmentationLoss:
    """(total, main, aux) of both heads: total = main + aux_weight * aux (PSPNet, section 3.3)."""

    main: PixelLoss
    aux: PixelLoss
    aux_weight: float

    def __call__(self, logits: Tensor, aux: Tensor, label: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """For logits and aux (N, C, h, w) and label (N, h, w)."""
        main, side = self.main(logits, label), self.aux(aux, label)
        return main + self.aux_weight * side, main, side


def build_loss(
    kind: str,
    *,
    ignore_label: int,
    aux_weight: float,
    weights: Tensor | None,
    ohem_threshold: float,
    ohem_min_kept: int,
) -> SegmentationLoss:
    """The loss by name: ce, or ohem, which mines in the main head alone, as is usual for PSPNet."""
    aux = main = CrossEntropy(ignore_label, weights)
    if kind == "ohem":
        main = OhemCrossEntropy(ignore_label, ohem_threshold, ohem_min_kept, weights)
    return SegmentationLoss(main, aux, aux_weight)


def segmentation_loss(
    logits: Tensor, aux: Tensor, label: Tensor, *, ignore_label: int, aux_weight: float
) -> tuple[Tensor, Tensor, Tensor]:
    """(total, main, aux), each the plain mean over labelled pixels: the loss of the paper."""
    plain = CrossEntropy(ignore_label)
    return SegmentationLoss(plain, plain, aux_weight)(logits, aux, label)


def pick_labels(label: Tensor, zoom_factor: int) -> Tensor:
    """Label at the size of the logits: every (8 / zoom_factor)-th pixel of (N, H, W)."""
    stride = 8 // zoom_factor
    return label[:, ::stride, ::stride]
