"""The training loss: cross entropy of both heads over labelled pixels."""

import torch.nn.functional as F
from torch import Tensor


def segmentation_loss(
    logits: Tensor, aux: Tensor, label: Tensor, *, ignore_label: int, aux_weight: float
) -> tuple[Tensor, Tensor, Tensor]:
    """(total, main, aux) for logits and aux (N, C, h, w) and label (N, h, w).

    total = main + aux_weight * aux (PSPNet, section 3.3). Each is the mean over the pixels that
    are not `ignore_label`, and 0 where there is none. Loss is computed in float32.
    """
    labelled = (label != ignore_label).sum().clamp(min=1)
    main, side = (
        F.cross_entropy(x.float(), label, ignore_index=ignore_label, reduction="sum") / labelled
        for x in (logits, aux)
    )
    return main + aux_weight * side, main, side


def pick_labels(label: Tensor, zoom_factor: int) -> Tensor:
    """Label at the size of the logits: every (8 / zoom_factor)-th pixel of (N, H, W)."""
    stride = 8 // zoom_factor
    return label[:, ::stride, ::stride]
