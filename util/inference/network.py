"""A network made ready for inference: a private copy, BatchNorm folded away, compiled on request.

The network handed in is never altered: it may be in the middle of its training.
"""

import copy
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval

from util.distributed.device import AMP_KINDS
from util.error import ConfigError

COMPILE_BACKEND = "inductor"
Network = TypeVar("Network", bound=nn.Module)


def inference_copy(
    model: nn.Module, device: torch.device, *, amp: str = "off", compiled: bool = False
) -> Any:
    """A copy in eval mode on `device` with weights in the precision `amp`, BatchNorm folded.

    Its logits are at 1/8 of the input's size where the network can leave them so
    (`upsamples`): the strips upsample them, which is the same bilinear function, corners
    aligned, as by way of a finer grid. Raises ConfigError where compiling is not possible.
    """
    if compiled:
        _need_compiler()
    network: Any = fold_batchnorm(copy.deepcopy(model).eval()).requires_grad_(False)
    if hasattr(network, "upsamples"):
        network.upsamples = False
    # Convolutions are faster with channels last, on a CPU and in mixed precision on a GPU.
    network = network.to(device, AMP_KINDS[amp], memory_format=torch.channels_last)
    return torch.compile(network, backend=COMPILE_BACKEND, dynamic=False) if compiled else network


def fold_batchnorm(model: Network) -> Network:
    """Put every BatchNorm behind a convolution into that convolution's weights; returns `model`.

    In eval mode a BatchNorm is a factor and a shift per channel, and so is part of the
    convolution before it. Found are neighbours of a Sequential and `convX`, `bnX` of one module. A
    BatchNorm with an activation of its own, as in timm, stays.
    """
    for parent in model.modules():
        children = dict(parent.named_children())
        if isinstance(parent, nn.Sequential):
            pairs = list(zip(children, list(children)[1:], strict=False))
        else:
            pairs = [(name, name.replace("conv", "bn", 1)) for name in children]
        for conv_name, bn_name in pairs:
            conv, bn = children[conv_name], children.get(bn_name)
            if type(conv) is not nn.Conv2d or not isinstance(bn, _BatchNorm):
                continue
            if bn.track_running_stats and not list(bn.children()):
                setattr(parent, conv_name, fuse_conv_bn_eval(conv, bn))
                setattr(parent, bn_name, nn.Identity())
    return model


@contextmanager
def gpu_flags(device: torch.device, *, tf32: bool, tune: bool) -> Iterator[None]:
    """How a GPU computes: products in TF32 (10 bits of mantissa) or full float32; with `tune` cuDNN
    tries its algorithms at each new shape, which pays where shapes repeat."""
    if device.type != "cuda":
        yield
        return
    matmul = torch.backends.cuda.matmul
    before, matmul.allow_tf32 = matmul.allow_tf32, tf32
    try:
        with torch.backends.cudnn.flags(
            enabled=True, benchmark=tune, deterministic=False, allow_tf32=tf32
        ):
            yield
    finally:
        matmul.allow_tf32 = before


def _need_compiler() -> None:
    names = [os.environ.get("CXX") or "g++", "clang++"]
    if not any(shutil.which(name) for name in names):
        raise ConfigError(
            f"TEST.test_compile needs a C++ compiler ({' or '.join(names)}), and none is here: "
            "install one, or set TEST.test_compile False"
        )
