"""Tests backbones in all parts of a run; as a command it prints the table in model/README.md.

python tests/helpers/backbones.py [NAME ...]
"""

import importlib
import io
import re
import signal
import sys
import tempfile
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from unittest import mock

import torch
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from model.backbones import build_backbone, traits_of, without_memory
from model.pspnet import PSPNet
from tests.conftest import write_tiny
from tests.helpers.runs import weights
from util.error import run_cli
from util.inference import SlidingPredictor
from util.training import trainer

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
SIDE = 64  # valid for all of them, and not 8k+1
FULL = 448  # for FLOP and strides: divisible by 14, too
ADAMW = ("optimizer", "adamw", "base_lr", "1e-4", "warmup_steps", "2")


def two_images(scale: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """Two noisy images of three colours, and which colour is where: sides SIDE * scale."""
    random = torch.Generator().manual_seed(0)
    label = torch.zeros(2, SIDE, SIDE, dtype=torch.long)
    label[0, :, 30:], label[1, 24:], label[:, 16:44, 8:36] = 1, 1, 2
    label = label.repeat_interleave(scale, 1).repeat_interleave(scale, 2)
    image = torch.nn.functional.one_hot(label, 3).permute(0, 3, 1, 2) * 2.0 - 1
    return image + 0.3 * torch.randn(image.shape, generator=random), label


def overfit(
    network: PSPNet, images: tuple[torch.Tensor, torch.Tensor], *, most_steps: int = 100
) -> tuple[float, int]:
    """Share of the pixels that are right, and the steps it took (or gave up)."""
    image, label = images
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


def try_network(name: str) -> dict[str, object]:
    """Builds, counts, trains, predicts and exports PSPNet on a backbone."""
    torch.manual_seed(0)
    traits = traits_of(name)
    network = PSPNet(classes=3, dropout=0, trunk=build_backbone(name))
    with torch.no_grad():
        middle, last = network.eval().trunk(torch.zeros(1, 3, SIDE, SIDE))
    counted = without_memory(lambda: build_backbone(name))
    with FlopCounterMode(display=False) as flops, torch.no_grad():
        counted(torch.zeros(1, 3, FULL, FULL, device=next(counted.parameters()).device))
    scale = 1 if last.shape[2] > 2 else 2  # 2 x 2 features cannot tell the three areas apart
    right, steps = overfit(network, two_images(scale))
    image = two_images()[0][:1]
    predictor = SlidingPredictor(network, classes=3, crop=(SIDE, SIDE), base_size=80)
    picture = ((image[0].permute(1, 2, 0) + 2) * 60).clamp(0, 255).byte().numpy()
    predicted = predictor.predict(picture)
    program = torch.export.export(network.eval(), (image,))
    with torch.no_grad():
        off = (program.module()(image).logits - network(image).logits).abs().max().item()
    return {
        "stride": FULL / traits.feature_size(FULL, FULL)[0],
        "features": tuple(last.shape[2:]),
        "middle": tuple(middle.shape[1:]),
        "sides": traits.step,
        "parameters": sum(p.numel() for p in network.backbone.parameters()),
        "gflop": flops.get_total_flops() / 1e9,
        "right": right,
        "steps": steps,
        "predicted": predicted.shape,
        "program": off,
    }


def tool(name: str, *words: object) -> tuple[int, str]:
    """(exit code, output) of a tool, run in this process."""
    main, output, code = importlib.import_module(f"tool.{name}").main, io.StringIO(), 0
    argv = [f"tool/{name}.py", *map(str, words)]
    with mock.patch.object(sys, "argv", argv), redirect_stdout(output), redirect_stderr(output):
        try:
            run_cli(main)
        except SystemExit as stop:
            code = int(stop.code or 0)
    return code, output.getvalue()


def train_stopped(step: int, *words: object) -> tuple[int, str]:
    """tool/train.py, which gets SIGTERM in this step: it saves and ends with 75."""
    calm_step = trainer.train_step

    def train_step(cfg, process, state, *rest):
        if state.step == step:
            signal.raise_signal(signal.SIGTERM)
        return calm_step(cfg, process, state, *rest)

    with mock.patch.object(trainer, "train_step", train_step):
        return tool("train", *words)


def try_tools(name: str, folder: Path, *, formats: tuple[str, ...] = ("onnx",)) -> dict[str, str]:
    """PSPNet on a backbone trained, stopped and resumed, tested and exported by the tools.

    Each is "yes", or what was wrong; an export the largest distance of a probability.
    """
    words = ["--config", write_tiny(folder), "backbone", name, *ADAMW, "epochs", 2]
    words += [word for key in ("train_h", "train_w", "test_h", "test_w") for word in (key, SIDE)]
    once, twice = (["save_path", folder / run / "model"] for run in ("once", "twice"))
    code, output = tool("train", *words, *once)
    assert code == 0, output
    code, output = train_stopped(2, *words, *twice)  # step 3 of 4: within the second epoch
    assert code == 75, output
    assert (folder / "twice/model/train_epoch_1_step_1.pth").is_file(), output
    code, output = tool("train", *words, *twice, "resume", "auto")
    assert code == 0 and "continuing from" in output, output
    whole, resumed = (
        weights(folder / run / "model/train_epoch_2.pth") for run in ("once", "twice")
    )
    is_equal = whole.keys() == resumed.keys()
    is_equal &= all(torch.equal(value, resumed[key]) for key, value in whole.items())
    row = {"resume": "yes" if is_equal else "no: weights differ"}
    code, output = tool("test", *words, *once)
    row["test"] = "yes" if code == 0 and "mIoU" in output else f"no: {output.splitlines()[-1]}"
    for kind in formats:
        arguments = ["--format", kind, "--output", folder / f"network.{kind}", "--probabilities"]
        code, output = tool("export", *words, *once, *arguments)
        found = re.findall(r"probabilities differ by at most (\S+)", output)
        is_one_sentence = code == 2 and output.splitlines()[-1].startswith("error: ")
        assert (code == 0 and found) or is_one_sentence, output
        row[kind] = max(found, key=float) if code == 0 else f"no: {output.splitlines()[-1]}"
    return row


def main() -> None:
    torch.set_num_threads(1)
    print(
        f"| backbone | stride | sides | million parameters | GFLOP at {FULL}x{FULL} "
        "| overfits after | resumes to the bit | test | program off by | ONNX off by |"
    )
    print("|" + "---|" * 10)
    for name in sys.argv[1:] or TRIED:
        start = time.perf_counter()
        row = try_network(name)
        sides = "any" if row["sides"] == 1 else f"multiples of {row['sides']}"
        with tempfile.TemporaryDirectory() as folder:
            row |= try_tools(name, Path(folder))
        print(
            f"| {name} | {row['stride']:.3g} | {sides} | {row['parameters'] / 1e6:.1f} "
            f"| {row['gflop']:.1f} | {row['steps']} steps ({row['right']:.3f}) "
            f"| {row['resume']} | {row['test']} | {row['program']:.0e} | {row['onnx']} |",
            flush=True,
        )
        print(f"{name}: {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
