"""Compare networks with generated weights against stored reference values, on this machine."""

import argparse
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from util.error import CheckpointError, ConfigError, nearest, run_cli  # isort: split

import numpy as np
import torch

from model.agreement import describe_network
from model.identify import identify
from model.psanet import PSANet
from model.pspnet import PSPNet
from model.segmentor import Segmentor
from util.distributed import describe
from util.distributed.device import autocast
from util.extra.golden import batch, fill, generator, load_cases, load_values, smooth_image
from util.inference import SlidingPredictor
from util.metric import ConfusionMatrix
from util.training.loss import build_loss
from util.training.schedule import poly_lr
from util.training.weight_file import load_file, state_dict_of

CLASSES_OF_NETWORKS = {"psp": PSPNet, "psa": PSANet}
EXIT_MISS = 1
Values = dict[str, np.ndarray]


@dataclass(frozen=True)
class Check:
    """A comparison: how far a number is off, and how far it may be."""

    case: str
    what: str
    deviation: float
    tolerance: float

    @property
    def is_hit(self) -> bool:
        return self.deviation <= self.tolerance  # False for NaN


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", help="cases to check; default: all")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--checkpoint", metavar="FILE", help="describe a weight file instead")
    args = parser.parse_args()
    if args.checkpoint and args.cases:
        raise ConfigError(
            f"--checkpoint describes a file and checks no cases, got {' '.join(args.cases)}: run "
            "them on their own"
        )
    if args.checkpoint:
        content = load_file(args.checkpoint)
        state = state_dict_of(content, source=args.checkpoint)
        kind = "safetensors" if args.checkpoint.endswith(".safetensors") else "PyTorch"
        try:
            found = {"file": f"{kind} format", **identify(state)}
        except CheckpointError as error:
            raise CheckpointError(f"{args.checkpoint} ({kind} format): {error}") from None
        if keys := describe_network(content, source=args.checkpoint):
            found["trained with"] = keys
        print("\n".join(f"{name}: {value}" for name, value in found.items()))
        return
    known = load_cases()
    for name in args.cases:
        if name not in known:
            near = nearest(name, list(known))
            raise ConfigError(f"no case '{name}'; nearest: {near[0] if near else ', '.join(known)}")
    try:
        device = torch.device(args.device)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"--device {args.device} does not work here: {reason}") from None

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    print(f"{describe(device)}, torch {torch.__version__}, float32")
    print(f"{'case':<20} {'number':<14} {'deviation':>10} {'tolerance':>10}")
    misses = 0
    for name in args.cases or known:
        for check in check_case(name, device, with_reduced=True):
            verdict = "" if check.is_hit else "  MISS"
            print(
                f"{check.case:<20} {check.what:<14} {check.deviation:>10.1e} "
                f"{check.tolerance:>10.0e}{verdict}",
                flush=True,
            )
            misses += not check.is_hit
    if misses:
        print(f"{misses} numbers exceed their tolerance")
        sys.exit(EXIT_MISS)
    print("all numbers agree")


def check_case(name: str, device: torch.device, *, with_reduced: bool = False) -> Iterator[Check]:
    """Run the checks of a case; `with_reduced` also reports bf16 and fp16, without a tolerance."""
    case, values = load_cases()[name], load_values()
    own = {k.removeprefix(f"{name}/"): v for k, v in values.items() if k.startswith(f"{name}/")}
    if name == "metric":
        checks = check_metric(case, own)
    elif name.startswith("test"):
        checks = check_protocol(case, own, device)
    else:
        checks = check_network(case, own, device, with_reduced=with_reduced)
    for what, deviation, tolerance in checks:
        yield Check(name, what, float(deviation), tolerance)


def build(case: dict[str, Any], device: torch.device) -> Segmentor:
    """Build the network of a case with generated weights and without dropout."""
    arguments = dict(case["variant"])
    network = CLASSES_OF_NETWORKS[arguments.pop("arch")](**arguments, dropout=0.0)
    return fill(network, case["salt"]).to(device)


def check_network(
    case: dict[str, Any], values: Values, device: torch.device, *, with_reduced: bool
) -> Iterator[tuple[str, float, float]]:
    """Compare logits (in units of their spread), losses, gradients and a few training steps."""
    network = build(case, device)
    n, _, height, width = case["input"]
    sizes = (n, height, width), tuple(case["label"][1:]), case["variant"]["classes"]
    image, label = (x.to(device) for x in batch(case["salt"], *sizes))

    stride, (_, spread) = int(values["logits_stride"]), values["logits_mean_std"]
    with torch.no_grad():
        exact = network.eval()(image).logits
        yield (
            "logits",
            _max_deviation(exact[..., ::stride, ::stride], values["logits"]) / spread,
            1e-4,
        )
        for kind in ("bf16", "fp16") if with_reduced else ():
            with autocast(device, kind):
                rough = network(image).logits.float()
            yield f"logits {kind}", _max_deviation(rough, exact.cpu().numpy()) / spread, math.inf

    total, *parts = _losses(network.train(), image, label)
    total.backward()
    yield "losses", _relative([x.item() for x in parts], values["losses"]), 1e-3
    parameters = dict(network.named_parameters())
    norms = [parameters[name].grad.norm().item() for name in case["grad_names"]]
    yield "gradients", _relative(norms, values["grad_norms"]), 1e-2
    if "steps" in case:
        trajectory = train_steps(case, sizes, device)
        yield "trajectory", _relative(trajectory, values["trajectory"]), 2e-2


def train_steps(case: dict[str, Any], sizes: tuple, device: torch.device) -> list[list[float]]:
    """Return the (main, aux) loss of each SGD step of the case."""
    network, steps = build(case, device).train(), case["steps"]
    optimizer = torch.optim.SGD(network.param_groups(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    trajectory = []
    for step in range(steps):
        image, label = (x.to(device) for x in batch(f"{case['salt']}/step{step}", *sizes))
        for group in optimizer.param_groups:
            group["lr"] = poly_lr(0.01, step, steps) * group["lr_scale"]
        total, *parts = _losses(network, image, label)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        trajectory.append([x.item() for x in parts])
    return trajectory


def check_protocol(
    case: dict[str, Any], values: Values, device: torch.device
) -> Iterator[tuple[str, float, float]]:
    """Compare probabilities and label map of the sliding-window test."""
    predictor = SlidingPredictor(
        build(case, device),
        classes=case["variant"]["classes"],
        crop=tuple(case["crop"]),
        base_size=case["base_size"],
        scales=case["scales"],
        device=device,
    )
    image = smooth_image(case["salt"], *case["image"])
    probabilities = predictor.probabilities(image).permute(1, 2, 0)
    yield "probabilities", _max_deviation(probabilities[::8, ::8], values["prob"]), 1e-4
    yield "labels", (predictor.predict(image) != values["label"]).mean(), 1e-3


def check_metric(case: dict[str, Any], values: Values) -> Iterator[tuple[str, float, float]]:
    """Compare pixel counts and scores of random label maps."""
    random, shape = generator(f"{case['salt']}/metric"), case["shape"]
    pred = random.randint(0, case["classes"], shape).astype(np.uint8)
    label = random.randint(0, case["classes"], shape)
    label = np.where(random.uniform(size=shape) < 0.5, pred, label)
    label = np.where(random.uniform(size=shape) < 0.1, 255, label)
    matrix = ConfusionMatrix(case["classes"], 255)
    matrix.update(pred, label)
    for what, area in zip(("intersection", "union", "target"), matrix.areas(), strict=True):
        yield what, np.abs(area - values[what]).max(), 0
    scores = matrix.scores()
    found = [scores.miou, scores.macc, scores.aacc]
    yield "scores", np.abs(np.subtract(found, values["scores"])).max(), 1e-9


def _losses(network: Segmentor, image: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    output = network(image)
    return build_loss("ce", ignore_label=255, aux_weight=0.4)(
        [output.logits, *output.auxiliary], label
    )


def _max_deviation(found: torch.Tensor, stored: np.ndarray) -> float:
    return np.abs(found.cpu().numpy() - stored).max()


def _relative(found: list, stored: np.ndarray) -> float:
    return np.abs(np.array(found) / stored - 1).max()


if __name__ == "__main__":
    run_cli(main)
