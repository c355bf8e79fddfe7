"""The training loss: cross entropy of both heads over labelled pixels, weighted or on hard ones.

A head's loss is a sum over pixels divided by their weight. Sum and weight are kept apart, so that
the weight can be that of a whole step: of all its processes and of all parts of its batch.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

# logits (N, C, h, w), label (N, h, w) -> sum over pixels, weight of these pixels
PixelLoss = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class CrossEntropy:
    """Sum over the pixels that are not `ignore_label`, and their number; in float32 or wider.

    With `weights` (C,) each pixel counts as much as the weight of its label's class.
    """

    ignore_label: int
    weights: Tensor | None = None

    def __call__(self, logits: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        loss = F.cross_entropy(
            _wide(logits),
            label,
            weight=self.weights,
            ignore_index=self.ignore_label,
            reduction="sum",
        )
        return loss, self.weight(label)

    def weight(self, label: Tensor) -> Tensor:
        """The weight of a label's pixels, known before any logits are."""
        labelled = label != self.ignore_label
        if self.weights is None:
            return labelled.sum().float()
        return _weights_of(label, labelled, self.weights).sum()


@dataclass(frozen=True)
class OhemCrossEntropy:
    """Cross entropy on hard pixels alone (online hard example mining, Shrivastava et al. 2016).

    Kept are the labelled pixels whose class gets a probability of at most `threshold`; where those
    are fewer than `min_kept`, the `min_kept` hardest ones of the batch (ties: all of them).
    `gather` joins the hardest pixels' probabilities (M,) of all processes, whose batch is one.
    """

    ignore_label: int
    threshold: float
    min_kept: int
    weights: Tensor | None = None
    gather: Callable[[Tensor], Tensor] = lambda x: x

    def __call__(self, logits: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        loss = F.cross_entropy(
            _wide(logits), label, ignore_index=self.ignore_label, reduction="none"
        )
        labelled = label != self.ignore_label
        with torch.no_grad():
            # Ignored pixels come last; where they are among the hardest, all labelled ones are.
            probability = torch.where(labelled, torch.exp(-loss), torch.inf)
            limit = self._hardest(probability.flatten()).clamp(min=self.threshold)
            kept = labelled & (probability <= limit)
            weights = kept.float()
            if self.weights is not None:
                weights = _weights_of(label, kept, self.weights)
        return (loss * weights).sum(), weights.sum()

    def _hardest(self, probability: Tensor) -> Tensor:
        """The min_kept-th smallest probability of the whole batch, of the last one if fewer."""
        own = probability.topk(min(self.min_kept, probability.numel()), largest=False).values
        together = self.gather(own)
        return together.kthvalue(min(self.min_kept, together.numel())).values


def _wide(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _weights_of(label: Tensor, counted: Tensor, weights: Tensor) -> Tensor:
    """Each pixel's class weight, 0 where it is not counted: (N, h, w)."""
    return weights[torch.where(counted, label, 0)] * counted


def _over(weight: Tensor) -> Tensor:
    """A weight to divide by: 1 where it is 0 (no labelled pixel), and the loss is 0 with it."""
    return torch.where(weight > 0, weight, 1)


@dataclass(frozen=True)
class SegmentationLoss:
    """(total, main, aux) of both heads: total = main + aux_weight * aux (PSPNet, section 3.3)."""

    main: PixelLoss
    aux: PixelLoss
    aux_weight: float

    def __call__(
        self,
        logits: Tensor,
        aux: Tensor,
        label: Tensor,
        *,
        over_all: Callable[[Tensor], Tensor] = lambda weights: weights,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """For logits and aux (N, C, h, w) and label (N, h, w): means over the pixels at hand.

        `over_all` turns the weights (2,) of these pixels, main and aux, into those of the whole
        step; then the results are this part's shares, and add up to the means over the step.
        """
        main, main_weight = self.main(logits, label)
        side, side_weight = self.aux(aux, label)
        weights = _over(over_all(torch.stack([main_weight, side_weight])))
        main, side = main / weights[0], side / weights[1]
        return main + self.aux_weight * side, main, side


def build_loss(
    kind: str,
    *,
    ignore_label: int,
    aux_weight: float,
    weights: Tensor | None,
    ohem_threshold: float,
    ohem_min_kept: int,
    gather: Callable[[Tensor], Tensor] = lambda x: x,
) -> SegmentationLoss:
    """The loss by name: ce, or ohem, which mines in the main head alone, as is usual for PSPNet."""
    aux = main = CrossEntropy(ignore_label, weights)
    if kind == "ohem":
        main = OhemCrossEntropy(ignore_label, ohem_threshold, ohem_min_kept, weights, gather)
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
