"""The training loss: cross entropy of all heads over labelled pixels, weighted or on hard ones.

A head's loss is a sum over pixels divided by their weight. Sum and weight are kept apart, so that
the divisor can be that of a whole step: of all its processes and of all parts of its batch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from util.training.upsampled_loss import pixel_losses, upsampled_cross_entropy, wide_dtype


class HeadLoss(NamedTuple):
    """Of one head: the sum over pixels, the weight of these pixels, the classes (N, H, W)."""

    total: Tensor
    weight: Tensor
    pred: Tensor


# logits (N, C, h, w), label (N, H, W) at least as large
PixelLoss = Callable[[Tensor, Tensor], HeadLoss]


@dataclass(frozen=True)
class CrossEntropy:
    """Sum over the pixels that are not `ignore_label`, and their number; in float32 or wider.

    With `weights` (C,) each pixel counts as much as the weight of its label's class. Logits
    smaller than the label are enlarged to its size, at no cost in memory.
    """

    ignore_label: int
    weights: Tensor | None = None

    def __call__(self, logits: Tensor, label: Tensor) -> HeadLoss:
        if logits.shape[-2:] == label.shape[-2:]:
            total = F.cross_entropy(
                logits.to(wide_dtype(logits)),
                label,
                weight=self.weights,
                ignore_index=self.ignore_label,
                reduction="sum",
            )
            return HeadLoss(total, self.weight(label), logits.detach().argmax(dim=1))
        weights = self.pixel_weights(label)
        total, pred = upsampled_cross_entropy(
            logits, label, weights, ignore_label=self.ignore_label
        )
        return HeadLoss(total, weights.sum(), pred)

    def weight(self, label: Tensor) -> Tensor:
        """The weight of a label's pixels, known before any logits are."""
        return self.pixel_weights(label).sum()

    def pixel_weights(self, label: Tensor) -> Tensor:
        """(N, H, W), 0 where the label is ignored."""
        return _class_weights(label, label != self.ignore_label, self.weights)


@dataclass(frozen=True)
class OhemCrossEntropy:
    """Cross entropy on hard pixels alone (online hard example mining, Shrivastava et al. 2016).

    Kept are the labelled pixels whose class gets a probability of at most `threshold`; where those
    are fewer than `min_kept`, the `min_kept` hardest ones of the batch (ties: all of them).
    `all_gather` joins the hardest pixels' probabilities (M,) of all processes, whose batch is one.
    """

    ignore_label: int
    threshold: float
    min_kept: int
    weights: Tensor | None = None
    all_gather: Callable[[Tensor], Tensor] = lambda x: x

    def __call__(self, logits: Tensor, label: Tensor) -> HeadLoss:
        losses = pixel_losses(logits.detach(), label, ignore_label=self.ignore_label)
        labelled = label != self.ignore_label
        # Ignored pixels come last; where they are among the hardest, all labelled ones are.
        probability = torch.where(labelled, torch.exp(-losses), torch.inf)
        limit = self._hardest(probability.flatten()).clamp(min=self.threshold)
        weights = _class_weights(label, labelled & (probability <= limit), self.weights)
        total, pred = upsampled_cross_entropy(
            logits, label, weights, ignore_label=self.ignore_label
        )
        return HeadLoss(total, weights.sum(), pred)

    def _hardest(self, probability: Tensor) -> Tensor:
        """The min_kept-th smallest probability of the whole batch, of the last one if fewer."""
        own = probability.topk(min(self.min_kept, probability.numel()), largest=False).values
        together = self.all_gather(own)
        return together.kthvalue(min(self.min_kept, together.numel())).values


def _class_weights(label: Tensor, counted: Tensor, weights: Tensor | None) -> Tensor:
    """The weight of each pixel's class (1 without `weights`), 0 where it is not counted."""
    return counted.float() if weights is None else weights[torch.where(counted, label, 0)] * counted


@dataclass(frozen=True)
class SegmentationLoss:
    """main + aux_weight * sum over auxiliary heads of scale * aux (PSPNet, section 3.3).

    `aux_scales` are the network's: one for each auxiliary head.
    """

    main: PixelLoss
    aux: "CrossEntropy"
    aux_weight: float
    aux_scales: tuple[float, ...] = (1.0,)

    def sums(
        self, heads: Sequence[Tensor], label: Tensor, sizes: Sequence[Sequence[int]]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Sums over pixels and weights of these pixels, (heads,) each; classes of the main head.

        `heads` are logits (N, C, h, w), the main head's first. Each is enlarged to its size in
        `sizes`, at which the label (N, H, W) is picked.
        """
        main, *aux = (
            (self.aux if i else self.main)(logits, label_at(label, size))
            for i, (logits, size) in enumerate(zip(heads, sizes, strict=True))
        )
        found = [main, *aux]
        sums, weights = (torch.stack([head[k] for head in found]) for k in (0, 1))
        return sums, weights, main.pred

    def weights(self, label: Tensor, sizes: Sequence[Sequence[int]]) -> Tensor:
        """The weights (heads,) of a label's pixels at these sizes, by the label alone."""
        return torch.stack([self.aux.weight(label_at(label, size)) for size in sizes])

    def losses(self, sums: Tensor, weights: Tensor) -> Tensor:
        """(3,): total, main, aux of the heads' sums over pixels, divided by `weights` (heads,).

        A head without labelled pixels has weight 0 and loss 0.
        """
        main, *aux = sums / torch.where(weights > 0, weights, 1)
        scaled = [scale * loss for scale, loss in zip(self.aux_scales, aux, strict=True)]
        side = sum(scaled, start=torch.zeros_like(main))
        return torch.stack([main + self.aux_weight * side, main, side])

    def __call__(self, heads: Sequence[Tensor], label: Tensor) -> Tensor:
        """`losses` as means over the pixels at hand, of heads at their own sizes."""
        sums, weights, _ = self.sums(heads, label, [logits.shape[-2:] for logits in heads])
        return self.losses(sums, weights)


def build_loss(
    kind: str,
    *,
    ignore_label: int,
    aux_weight: float,
    aux_scales: tuple[float, ...] = (1.0,),
    weights: Tensor | None = None,
    ohem_threshold: float = 0.7,
    ohem_min_kept: int = 100000,
    all_gather: Callable[[Tensor], Tensor] = lambda x: x,
) -> SegmentationLoss:
    """The loss by name: ce, or ohem, which mines in the main head alone, as is usual for PSPNet."""
    aux = CrossEntropy(ignore_label, weights)
    main: PixelLoss = aux
    if kind == "ohem":
        main = OhemCrossEntropy(ignore_label, ohem_threshold, ohem_min_kept, weights, all_gather)
    return SegmentationLoss(main, aux, aux_weight, aux_scales)


def label_at(label: Tensor, size: Sequence[int]) -> Tensor:
    """The label (N, H, W) at the size (h, w) of logits: the nearest pixel of each position.

    Logits of sides (H - 1) / s + 1 have their corners on the label's: every s-th pixel.
    """
    rows, columns = (
        _nearest(*sides, label.device) for sides in zip(label.shape[-2:], size, strict=True)
    )
    return label[:, rows][:, :, columns]


def _nearest(side: int, target: int, device: torch.device) -> slice | Tensor:
    stride, rest = divmod(side - 1, max(1, target - 1))
    if target > 1 and not rest:
        return slice(None, None, stride)
    return (2 * torch.arange(target, device=device) + 1) * side // (2 * target)
