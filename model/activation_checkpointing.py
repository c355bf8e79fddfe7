"""Activation checkpointing: recompute the inside of residual blocks in the backward pass."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from model.resnet import BasicBlock, Bottleneck


def checkpoint_activations(model: nn.Module) -> None:
    """Make every residual block store only its input while training (Chen et al., 2016).

    Results, gradients and names in the state dict do not change.
    """
    for block in model.modules():
        if isinstance(block, (BasicBlock, Bottleneck)):
            forward = partial(_forward, block, block.forward)
            block.forward = forward  # type: ignore[method-assign]


def _forward(block: nn.Module, forward: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    if not block.training:
        return forward(x)

    def contexts() -> tuple[AbstractContextManager, AbstractContextManager]:
        return nullcontext(), _statistics_kept(block)

    return checkpoint(
        forward, x, use_reentrant=False, preserve_rng_state=False, context_fn=contexts
    )


@contextmanager
def _statistics_kept(block: nn.Module) -> Iterator[None]:
    """Freeze running statistics during recomputation, which would update them a second time."""
    norms = [m for m in block.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    buffers = [(norm, name, value) for norm in norms for name, value in norm.named_buffers()]
    for norm, name, value in buffers:
        setattr(norm, name, value.clone())
    try:
        yield
    finally:
        for norm, name, value in buffers:
            setattr(norm, name, value)
