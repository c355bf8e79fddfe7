"""Preparing a network for inference: a copy with BatchNorm folded, optionally compiled.

The original is never modified: it may still be training.
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
from util.inference.winograd import WinogradConv2d, is_suitable

COMPILE_BACKEND = "inductor"
Network = TypeVar("Network", bound=nn.Module)


def inference_copy(
    model: nn.Module, device: torch.device, *, amp: str = "off", compiled: bool = False
) -> Any:
    """Return a copy in eval mode on `device`, weights in precision `amp`, BatchNorm folded.

    Segmentors keep their logits at 1/8 of the input size (`prepare_inference`): strips.py upsamples
    them, with the same result because bilinear upsampling with aligned corners composes.
    Raises ConfigError if the network cannot be compiled.
    """
    if compiled:
        _check_compiler()
    network: Any = fold_batchnorm(copy.deepcopy(model).eval()).requires_grad_(False)
    for module in list(network.modules()):  # it may be wrapped
        if hasattr(module, "prepare_inference"):
            module.prepare_inference()
    if device.type == "cpu" and amp == "off" and not compiled:
        _use_winograd(network)
    # Channels last is faster on CPUs and in mixed precision on GPUs.
    network = network.to(device, AMP_KINDS[amp], memory_format=torch.channels_last)
    return torch.compile(network, backend=COMPILE_BACKEND, dynamic=False) if compiled else network


def fold_batchnorm(model: Network) -> Network:
    """Fold every BatchNorm into the convolution before it, in place; returns `model`.

    Pairs are recognised as neighbours in a Sequential and as `convX`, `bnX` of one module.
    BatchNorm with a built-in activation, as in timm, is kept.
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


def _use_winograd(model: nn.Module) -> None:
    for parent in model.modules():
        for name, child in parent.named_children():
            if is_suitable(child):
                setattr(parent, name, WinogradConv2d(child))


@contextmanager
def gpu_flags(device: torch.device, *, tf32: bool, tune: bool) -> Iterator[None]:
    """Set a GPU's precision to TF32 (10 bits of mantissa) or full float32 within this context.

    With `tune`, cuDNN benchmarks its algorithms for each new shape; worth it if shapes repeat.
    """
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


def _check_compiler() -> None:
    names = [os.environ.get("CXX") or "g++", "clang++"]
    if not any(shutil.which(name) for name in names):
        raise ConfigError(
            f"TEST.test_compile needs a C++ compiler ({' or '.join(names)}), but none was found: "
            "install one, or set TEST.test_compile False"
        )
