"""The fused loss equals upsampling the logits followed by cross entropy."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from util.training import upsampled_loss
from util.training.upsampled_loss import (
    interpolation_matrix,
    pixel_losses,
    upsampled_cross_entropy,
)

IGNORED = 255


def plain(logits: Tensor, label: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    large = F.interpolate(wide, label.shape[1:], mode="bilinear", align_corners=True)
    losses = F.cross_entropy(large, label, ignore_index=IGNORED, reduction="none")
    return (losses * weight).sum(), large.argmax(dim=1)


def example(
    dtype: torch.dtype, *, size: tuple[int, int] = (57, 65)
) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    logits = (torch.randn(2, 7, 8, 9) * 3).to(dtype).requires_grad_()
    label = torch.randint(0, 7, (2, *size))
    label[:, :5] = IGNORED
    return logits, label, torch.rand(2, *size)


@pytest.mark.parametrize("floats", [2**27, 3000], ids=["in one piece", "in strips"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 1e-2)],
)
def test_loss_gradient_and_classes(
    monkeypatch: pytest.MonkeyPatch,
    dtype: torch.dtype,
    tolerance: float,
    layout: torch.memory_format,
    floats: int,
) -> None:
    monkeypatch.setitem(upsampled_loss.STRIP_FLOATS, "cpu", floats)
    logits, label, weight = example(dtype)
    expected, classes = plain(logits, label, weight)
    (expected * 0.3).backward()
    own = logits.detach().contiguous(memory_format=layout).requires_grad_()
    loss, pred = upsampled_cross_entropy(own, label, weight, ignore_label=IGNORED)
    (loss * 0.3).backward()
    torch.testing.assert_close(loss, expected, rtol=max(tolerance, 1e-6), atol=0)
    scale = float(logits.grad.abs().max())
    torch.testing.assert_close(own.grad, logits.grad, rtol=0, atol=tolerance * scale)
    assert (pred == classes).float().mean() > 0.999


@pytest.mark.parametrize("size", [(8, 9), (15, 17)], ids=["equal size", "every second row"])
def test_other_sizes(size: tuple[int, int]) -> None:
    logits, label, weight = example(torch.float64, size=size)
    loss, _ = upsampled_cross_entropy(logits, label, weight, ignore_label=IGNORED)
    torch.testing.assert_close(loss, plain(logits, label, weight)[0].to(loss.dtype))


def test_the_losses_of_pixels() -> None:
    logits, label, weight = example(torch.float32)
    losses = pixel_losses(logits, label, ignore_label=IGNORED)
    assert not losses.requires_grad and not losses[:, :5].any()
    torch.testing.assert_close((losses * weight).sum(), plain(logits, label, weight)[0].detach())


def test_an_ignored_image_has_no_loss_and_no_gradient() -> None:
    logits, label, weight = example(torch.float32)
    label[:] = IGNORED
    loss, _ = upsampled_cross_entropy(logits, label, weight, ignore_label=IGNORED)
    loss.backward()
    assert loss == 0 and not logits.grad.any()


def test_a_logit_that_is_not_finite_is_not_hidden() -> None:
    logits, label, weight = example(torch.float32)
    with torch.no_grad():
        logits[0, 3, 4, 4] = torch.nan
    loss, _ = upsampled_cross_entropy(logits, label, weight, ignore_label=IGNORED)
    assert not torch.isfinite(loss)


def test_a_map_of_one_row() -> None:
    matrix = interpolation_matrix(1, 5, torch.float32, torch.device("cpu"))
    assert matrix.shape == (5, 1) and (matrix == 1).all()


@pytest.mark.gpu
def test_on_a_gpu() -> None:
    logits, label, weight = example(torch.float32)
    expected, _ = plain(logits, label, weight)
    expected.backward()
    own = logits.detach().cuda().requires_grad_()
    loss, _ = upsampled_cross_entropy(own, label.cuda(), weight.cuda(), ignore_label=IGNORED)
    loss.backward()
    torch.testing.assert_close(loss.cpu(), expected, rtol=1e-5, atol=0)
    torch.testing.assert_close(own.grad.cpu(), logits.grad, rtol=0, atol=1e-5)
