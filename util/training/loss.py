"""The training loss: cross entropy of all heads over labelled pixels, weighted or on hard ones.

A head's loss is a sum over pixels divided by their weight. Sum and weight are kept apart, so that
the divisor can be that of a whole step: of all its processes and of all parts of its batch.
"""

from collections.abc import Callable, Sequence
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
    `all_gather` joins the hardest pixels' probabilities (M,) of all processes, whose batch is one.
    """

    ignore_label: int
    threshold: float
    min_kept: int
    weights: Tensor | None = None
    all_gather: Callable[[Tensor], Tensor] = lambda x: x

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
        together = self.all_gather(own)
        return together.kthvalue(min(self.min_kept, together.numel())).values


def _wide(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _weights_of(label: Tensor, counted: Tensor, weights: Tensor) -> Tensor:
    """Each pixel's class weight, 0 where it is not counted: (N, h, w)."""
    return weights[torch.where(counted, label, 0)] * counted


@dataclass(frozen=True)
class SegmentationLoss:
    """main + aux_weight * sum over auxiliary heads of scale * aux (PSPNet, section 3.3).

    `aux_scales` are the network's: one for each auxiliary head.
    """

    main: PixelLoss
    aux: PixelLoss
    aux_weight: float
    aux_scales: tuple[float, ...] = (1.0,)

    def sums(self, heads: Sequence[Tensor], label: Tensor) -> tuple[Tensor, Tensor]:
        """Sum over pixels and weight of these pixels, (heads,) each.

        `heads` are logits (N, C, h, w), the main head's first; `label` (N, H, W) is picked at the
        size of each.
        """
        pairs = [
            (self.aux if i else self.main)(logits, label_at(label, logits.shape[-2:]))
            for i, logits in enumerate(heads)
        ]
        return torch.stack([total for total, _ in pairs]), torch.stack([w for _, w in pairs])

    def weights(self, heads: Sequence[Tensor], label: Tensor) -> Tensor:
        """The weights (heads,) of a label's pixels at the sizes of `heads`, by the label alone."""
        return torch.stack(
            [self.aux.weight(label_at(label, logits.shape[-2:])) for logits in heads]
        )

    def losses(self, sums: Tensor, weights: Tensor) -> Tensor:
        """(3,): total, main, aux of the heads' sums over pixels, divided by `weights` (heads,).

        A head without labelled pixels has weight 0 and loss 0.
        """
        main, *aux = sums / torch.where(weights > 0, weights, 1)
        scaled = [scale * loss for scale, loss in zip(self.aux_scales, aux, strict=True)]
        side = sum(scaled, start=torch.zeros_like(main))
        return torch.stack([main + self.aux_weight * side, main, side])

    def __call__(self, heads: Sequence[Tensor], label: Tensor) -> Tensor:
        """`losses` as means over the pixels at hand."""
        return self.losses(*self.sums(heads, label))


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
    aux = main = CrossEntropy(ignore_label, weights)
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
