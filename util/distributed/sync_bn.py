"""Converting BatchNorm to SyncBatchNorm: PyTorch's on GPUs, an own one on CPUs.

PyTorch's has no kernel for CPUs; this one makes distributed training testable without a GPU.
"""

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from util.error import ConfigError


class CPUSyncBatchNorm(nn.BatchNorm2d):
    """nn.BatchNorm2d with mean and variance over all processes: (N, C, h, w) -> (N, C, h, w).

    Same parameter and buffer names as nn.BatchNorm2d. Processes may have different numbers of
    images. Statistics are computed in at least float32.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        dims = (0, 2, 3)
        pixels = wide.new_tensor([x.numel() // x.shape[1]])
        # Two all-reduces: E[x^2] - E[x]^2 in one would lose half of the digits.
        sums = _SumOverProcesses.apply(torch.cat([wide.sum(dims), pixels]))
        count = sums[-1].detach()
        mean = sums[:-1] / count
        centred = wide - mean.view(1, -1, 1, 1)
        var = _SumOverProcesses.apply(centred.square().sum(dims)) / count
        if self.track_running_stats:
            self._update(mean.detach(), var.detach() * count / (count - 1))
        scale = torch.rsqrt(var + self.eps)
        y = centred * (scale * self.weight).view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)
        return y.to(x.dtype)

    @torch.no_grad()
    def _update(self, mean: Tensor, var: Tensor) -> None:
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None and self.momentum is not None
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
        self.running_var.lerp_(var.to(self.running_var.dtype), self.momentum)


class _SumOverProcesses(torch.autograd.Function):
    """Sum a tensor over all processes; the gradient is summed as well."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> Tensor:
        total = grad.contiguous().clone()
        dist.all_reduce(total)
        return total


class CPUSyncBatchNormAct(CPUSyncBatchNorm):
    """The same, followed by the dropout and activation that timm's BatchNormAct2d holds."""

    drop: nn.Module
    act: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.drop(super().forward(x)))


def synchronise_batch_norm(model: nn.Module, *, on_gpu: bool) -> nn.Module:
    """Convert every BatchNorm2d of the model, also timm's BatchNormAct2d; returns the model.

    Raises ConfigError for other kinds of BatchNorm, which the conversion could change.
    """
    kinds = {type(module) for module in model.modules() if isinstance(module, _BatchNorm)}
    with_activation = {kind for kind in kinds if kind.__name__ == "BatchNormAct2d"}
    for kind in kinds - with_activation - {nn.BatchNorm2d}:
        raise ConfigError(
            f"TRAIN.sync_bn True cannot synchronise the {kind.__name__} of this backbone: set it "
            "to False"
        )
    if on_gpu and with_activation:
        from timm.layers import convert_sync_batchnorm

        return convert_sync_batchnorm(model)
    if on_gpu:
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)
    for module in model.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = CPUSyncBatchNorm
        elif type(module) in with_activation:
            module.__class__ = CPUSyncBatchNormAct
    return model
