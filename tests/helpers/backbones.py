"""Tries a backbone in all that a run does; as a command it prints the table of model/README.md."""

import sys
import time
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from model.backbones import build_backbone, traits_of, without_memory
from model.pspnet import PSPNet
from util.inference import SlidingPredictor

TRIED = (
    "torchvision/resnet50",
    "torchvision/resnext50_32x4d",
    "torchvision/wide_resnet50_2",
    "torchvision/regnet_y_400mf",
    "torchvision/mobilenet_v3_large",
    "torchvision/efficientnet_v2_s",
    "torchvision/convnext_tiny",
    "torchvision/swin_t",
    "timm/resnext50_32x4d",
    "timm/regnety_004",
    "timm/efficientnet_b0",
    "timm/mobilenetv4_conv_small",
    "timm/convnext_atto",
    "timm/convnextv2_atto",
    "timm/swin_tiny_patch4_window7_224",
    "timm/vit_tiny_patch16_224",
    "timm/vit_small_patch14_dinov2",
    "timm/pvt_v2_b0",
)
SIDE = 64  # a multiple of what all of them take, and no 8k+1


def two_images() -> tuple[torch.Tensor, torch.Tensor]:
    """Two noisy images of three colours, and which colour is where."""
    random = torch.Generator().manual_seed(0)
    label = torch.zeros(2, SIDE, SIDE, dtype=torch.long)
    label[0, :, 30:], label[1, 24:], label[:, 16:44, 8:36] = 1, 1, 2
    image = torch.nn.functional.one_hot(label, 3).permute(0, 3, 1, 2) * 2.0 - 1
    return image + 0.3 * torch.randn(image.shape, generator=random), label


def overfit(network: PSPNet, *, most_steps: int = 50) -> tuple[float, int]:
    """Share of the pixels of two images that are right, and the steps it took (or gave up)."""
    image, label = two_images()
    groups = [{"params": g["params"], "lr": 3e-4 * g["lr_scale"]} for g in network.param_groups()]
    optimizer = torch.optim.AdamW(groups)
    network.train()
    for step in range(1, most_steps + 1):  # noqa: B007
        out = network(image)
        loss = torch.nn.functional.cross_entropy(out.logits, label)
        loss = loss + 0.4 * torch.nn.functional.cross_entropy(out.aux, label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        right = (out.logits.argmax(1) == label).float().mean().item()
        if right > 0.97:
            break
    return right, step


def try_backbone(name: str) -> dict[str, object]:
    """Builds, counts, trains, predicts and exports PSPNet on a backbone."""
    torch.manual_seed(0)
    traits = traits_of(name)
    network = PSPNet(classes=3, dropout=0, trunk=build_backbone(name))
    with torch.no_grad():
        middle, last = network.eval().trunk(torch.zeros(1, 3, SIDE, SIDE))
    counted = without_memory(lambda: build_backbone(name))
    with FlopCounterMode(display=False) as flops, torch.no_grad():
        counted(torch.zeros(1, 3, 448, 448, device=next(counted.parameters()).device))
    right, steps = overfit(network)
    image = two_images()[0][:1]
    predictor = SlidingPredictor(network, classes=3, crop=(SIDE, SIDE), base_size=80)
    picture = ((image[0].permute(1, 2, 0) + 2) * 60).clamp(0, 255).byte().numpy()
    predicted = predictor.predict(picture)
    program = torch.export.export(network.eval(), (image,))
    with torch.no_grad():
        off = (program.module()(image).logits - network(image).logits).abs().max().item()
    return {
        "name": name,
        "stride": SIDE / last.shape[2],
        "features": tuple(last.shape[2:]),
        "middle": tuple(middle.shape[1:]),
        "sides": traits.step,
        "parameters": sum(p.numel() for p in network.backbone.parameters()),
        "gflop": flops.get_total_flops() / 1e9,
        "right": right,
        "steps": steps,
        "predicted": predicted.shape,
        "export": off,
    }


def main() -> None:
    print("| backbone | stride | sides | million parameters | GFLOP at 448x448 | overfits after |")
    print("|---|---|---|---|---|---|")
    for name in sys.argv[1:] or TRIED:
        start = time.perf_counter()
        row = try_backbone(name)
        sides = "any" if row["sides"] == 1 else f"multiples of {row['sides']}"
        print(
            f"| {name} | {row['stride']:.3g} | {sides} | {row['parameters'] / 1e6:.1f} "
            f"| {row['gflop']:.1f} | {row['steps']} steps ({row['right']:.3f}) |",
            f"{row['export']:.1e} {time.perf_counter() - start:.0f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
