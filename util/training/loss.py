"""The training loss: cross entropy of all heads over all labelled pixels or only the hard ones.

The loss of a head is a weighted sum over pixels divided by the total weight. The two are returned
separately so that the total can be taken over all processes and micro-batches of a step.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from util.training.upsampled_loss import pixel_losses, upsampled_cross_entropy, wide_dtype


class HeadLoss(NamedTuple):
    """Loss of one head: weighted sum over pixels, total weight, predicted classes (N, H, W)."""

    total: Tensor
    weight: Tensor
    pred: Tensor


# (logits (N, C, h, w), label (N, H, W) with H >= h and W >= w) -> HeadLoss
PixelLoss = Callable[[Tensor, Tensor], HeadLoss]


@dataclass(frozen=True)
class CrossEntropy:
    """Cross entropy over all pixels whose label is not `ignore_label`, in float32 or wider.

    With `weights` (C,) each pixel is weighted by its class. Logits smaller than the label are
    upsampled on the fly, without storing the large map.
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
        """Total weight of a label's pixels; does not depend on logits."""
        return self.pixel_weights(label).sum()

    def pixel_weights(self, label: Tensor) -> Tensor:
        """Weight of each pixel (N, H, W), 0 where the label is ignored."""
        return _class_weights(label, label != self.ignore_label, self.weights)


@dataclass(frozen=True)
class OhemCrossEntropy:
    """Cross entropy over hard pixels (online hard example mining, Shrivastava et al. 2016).

    A pixel is hard if the probability of its true class is at most `threshold`. If fewer than
    `min_kept` pixels of the batch are, the `min_kept` hardest are used, with all ties.
    `all_gather` concatenates probabilities (M,) of all processes, so that the batch is global.
    """

    ignore_label: int
    threshold: float
    min_kept: int
    weights: Tensor | None = None
    all_gather: Callable[[Tensor], Tensor] = lambda x: x

    def __call__(self, logits: Tensor, label: Tensor) -> HeadLoss:
        losses = pixel_losses(logits.detach(), label, ignore_label=self.ignore_label)
        labelled = label != self.ignore_label
        # inf sorts ignored pixels last: the limit is inf only if all labelled pixels are kept.
        probability = torch.where(labelled, torch.exp(-losses), torch.inf)
        limit = self._hardest(probability.flatten()).clamp(min=self.threshold)
        weights = _class_weights(label, labelled & (probability <= limit), self.weights)
        total, pred = upsampled_cross_entropy(
            logits, label, weights, ignore_label=self.ignore_label
        )
        return HeadLoss(total, weights.sum(), pred)

    def _hardest(self, probability: Tensor) -> Tensor:
        """Return the min_kept-th smallest probability of the global batch, or the largest."""
        own = probability.topk(min(self.min_kept, probability.numel()), largest=False).values
        together = self.all_gather(own)
        return together.kthvalue(min(self.min_kept, together.numel())).values


def _class_weights(label: Tensor, counted: Tensor, weights: Tensor | None) -> Tensor:
    """Look up the weight of each pixel's class (1 without `weights`), 0 where not `counted`."""
    return counted.float() if weights is None else weights[torch.where(counted, label, 0)] * counted


@dataclass(frozen=True)
class SegmentationLoss:
    """main + aux_weight * sum over auxiliary heads of scale * aux (PSPNet, section 3.3).

    `aux_scales` holds one factor per auxiliary head, as defined by the network.
    """

    main: PixelLoss
    aux: "CrossEntropy"
    aux_weight: float
    aux_scales: tuple[float, ...] = (1.0,)

    def sums(
        self, heads: Sequence[Tensor], label: Tensor, sizes: Sequence[Sequence[int]]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return weighted sums (heads,), total weights (heads,) and the main head's classes.

        `heads` are logits (N, C, h, w), the main head first. Each is upsampled to its size in
        `sizes`, and the label (N, H, W) is sampled at that size.
        """
        main, *aux = (
            (self.aux if i else self.main)(logits, label_at(label, size))
            for i, (logits, size) in enumerate(zip(heads, sizes, strict=True))
        )
        found = [main, *aux]
        sums, weights = (torch.stack([head[k] for head in found]) for k in (0, 1))
        return sums, weights, main.pred

    def weights(self, label: Tensor, sizes: Sequence[Sequence[int]]) -> Tensor:
        """Total weights (heads,) of a label at these sizes; does not depend on logits."""
        return torch.stack([self.aux.weight(label_at(label, size)) for size in sizes])

    def losses(self, sums: Tensor, weights: Tensor) -> Tensor:
        """Divide sums by `weights` (both (heads,)) and return the total, main and aux loss, (3,).

        A head without labelled pixels has weight 0 and loss 0.
        """
        main, *aux = sums / torch.where(weights > 0, weights, 1)
        scaled = [scale * loss for scale, loss in zip(self.aux_scales, aux, strict=True)]
        side = sum(scaled, start=torch.zeros_like(main))
        return torch.stack([main + self.aux_weight * side, main, side])

    def __call__(self, heads: Sequence[Tensor], label: Tensor) -> Tensor:
        """Losses (3,) of this batch alone, each head at its own size."""
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
    """Build the loss by name: ce or ohem. OHEM applies to the main head only."""
    aux = CrossEntropy(ignore_label, weights)
    main: PixelLoss = aux
    if kind == "ohem":
        main = OhemCrossEntropy(ignore_label, ohem_threshold, ohem_min_kept, weights, all_gather)
    return SegmentationLoss(main, aux, aux_weight, aux_scales)


def label_at(label: Tensor, size: Sequence[int]) -> Tensor:
    """Sample a label (N, H, W) at the size (h, w) of logits, nearest neighbour.

    If the sides are (H - 1) / s + 1, corners are aligned and every s-th pixel is taken.
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
