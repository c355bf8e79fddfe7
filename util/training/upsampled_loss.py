"""Cross entropy of logits upsampled to the size of the label, without storing the upsampled map.

Bilinear upsampling is separable: one matrix product for rows, one for columns. It is done for one
strip of rows at a time, together with the softmax and the gradient of the small map, so memory
traffic does not grow with classes x H x W. On a GPU this replaces the slowest kernels of a step
(the backward pass of bilinear interpolation took a third of it); on a CPU strips fit in the cache.
"""

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

# Floats per upsampled strip: fits in a CPU's cache; large enough to fill a GPU.
STRIP_FLOATS = {"cpu": 2**19, "cuda": 2**27}


@lru_cache(maxsize=64)
def interpolation_matrix(
    small: int, large: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Return the matrix (large, small) of linear interpolation with aligned corners."""
    position = torch.arange(large, dtype=torch.float64) * ((small - 1) / max(1, large - 1))
    lower = position.floor().clamp(max=max(0, small - 2))
    share = position - lower
    matrix = torch.zeros(large, small, dtype=torch.float64)
    row, column = torch.arange(large), lower.long()
    matrix[row, column] = 1 - share
    if small > 1:
        matrix[row, column + 1] = share
    return matrix.to(device, dtype)


def pixel_losses(logits: Tensor, label: Tensor, *, ignore_label: int) -> Tensor:
    """Cross entropy of each pixel: (N, C, h, w), (N, H, W) -> (N, H, W); 0 where ignored.

    Not differentiable.
    """
    with torch.no_grad():
        ones = torch.ones_like(label, dtype=wide_dtype(logits))
        return _strips(logits, label, ones, ignore_label, needs_grad=False)[0]


def upsampled_cross_entropy(
    logits: Tensor, label: Tensor, pixel_weight: Tensor, *, ignore_label: int
) -> tuple[Tensor, Tensor]:
    """Return the sum over pixels of weight * cross entropy, and the predicted classes (N, H, W).

    logits (N, C, h, w) of any float type; label (N, H, W) with H >= h, W >= w; pixel_weight
    (N, H, W), not used where the label is `ignore_label`. The sum is in float32 or wider. The
    upsampled logits are too, except that half precision from autocast is kept on a GPU. Only
    `logits` gets a gradient.
    """
    return _UpsampledCrossEntropy.apply(logits, label, pixel_weight, ignore_label)


def wide_dtype(logits: Tensor) -> torch.dtype:
    """Return the dtype of losses: float64 for float64 logits, else float32."""
    return torch.promote_types(logits.dtype, torch.float32)


class _UpsampledCrossEntropy(torch.autograd.Function):
    """Computes the gradient in the forward pass, where the probabilities are available."""

    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        label: Tensor,
        pixel_weight: Tensor,
        ignore_label: int,
    ) -> tuple[Tensor, Tensor]:
        needs_grad = ctx.needs_input_grad[0]
        losses, pred, grad = _strips(
            logits, label, pixel_weight, ignore_label, needs_grad=needs_grad
        )
        ctx.dtype = logits.dtype
        ctx.save_for_backward(grad)
        ctx.mark_non_differentiable(pred)
        return losses.sum(), pred

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor, _: Tensor) -> tuple[Tensor, None, None, None]:
        (grad,) = ctx.saved_tensors
        return (grad * grad_loss).to(ctx.dtype), None, None, None


def _strips(
    logits: Tensor, label: Tensor, pixel_weight: Tensor, ignore_label: int, *, needs_grad: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return weighted losses and classes (N, H, W), and on request the gradient for `logits`."""
    is_cpu = logits.device.type == "cpu"
    dtype = wide_dtype(logits) if is_cpu else logits.dtype
    (n, classes, h, w), (height, width) = logits.shape, label.shape[1:]
    rows = interpolation_matrix(h, height, dtype, logits.device)
    columns = interpolation_matrix(w, width, dtype, logits.device)
    valid = label != ignore_label
    target = torch.where(valid, label, 0)
    weight = torch.where(valid, pixel_weight, 0).to(wide_dtype(logits))
    losses, pred = torch.empty_like(weight), torch.empty_like(label)
    grad = torch.empty_like(logits, dtype=wide_dtype(logits)) if needs_grad else None

    floats = STRIP_FLOATS["cpu" if is_cpu else "cuda"]
    images = max(1, min(n, floats // (classes * height * width)))
    lines = max(1, min(height, floats // (classes * width)))
    # The memory layout decides the speed of the softmax: (images, h, w, C) is faster on a GPU,
    # (images, h, C, w) on a CPU.
    order, back, dim = (
        ((0, 2, 1, 3), (0, 2, 1, 3), -2) if is_cpu else ((0, 2, 3, 1), (0, 3, 1, 2), -1)
    )
    for i in range(0, n, images):
        small = logits[i : i + images].to(dtype).permute(order)
        wide = small @ columns.T if is_cpu else columns @ small
        shape, wide = wide.shape[2:], wide.flatten(2)
        wide_grad = torch.zeros_like(wide, dtype=wide_dtype(logits)) if needs_grad else None
        for top in range(0, height, lines):
            strip = (slice(i, i + images), slice(top, top + lines))
            log_probs = (rows[top : top + lines] @ wide).unflatten(2, shape).log_softmax(dim)
            index = target[strip].unsqueeze(dim)
            pred[strip] = log_probs.max(dim).indices
            losses[strip] = -log_probs.gather(dim, index).squeeze(dim) * weight[strip]
            if needs_grad:
                probs = log_probs.exp_()
                probs.scatter_add_(dim, index, probs.new_full((), -1.0).expand(index.shape))
                probs *= weight[strip].unsqueeze(dim).to(dtype)
                wide_grad += rows[top : top + lines].T @ probs.flatten(2)
        if grad is not None and wide_grad is not None:
            wide_grad = wide_grad.unflatten(2, shape).to(dtype)
            small_grad = wide_grad @ columns if is_cpu else columns.T @ wide_grad
            grad[i : i + images] = small_grad.permute(back)
    return losses, pred, grad
