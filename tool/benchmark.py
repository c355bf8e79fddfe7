"""Measure this project against the plain way of doing the same, in one run on this machine."""

import argparse
import shlex
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from util.error import ConfigError, run_cli  # isort: split

from model import check_network
from util.config import ConfigParser, check_test, load_config
from util.config.load import ROOT
from util.extra.benchmark.gpu import SHARES, Settings, benchmark_gpu
from util.extra.benchmark.inference import benchmark_test

TEST_HELP = """Test images with the plain loop (one window and its mirror image at a time,
probabilities in float64 NumPy) and with the engine of tool/test.py, in turn, at one scale and at
six. Medians over runs and images; the speed-up is the median of the ratios of each turn."""

GPU_HELP = """Everything that needs a GPU: its ceilings, the tests marked gpu, the golden numbers
(env); training steps of the large networks in every mode (step); the engine (test); the toy recipe,
killed and resumed (resume); CamVid from ImageNet weights: PSPNet18 with both ways to augment
(augment), PSPNet50 as long as the time allows (camvid). gpu.jsonl in the output folder
grows row by row; gpu.json, gpu.md and gpu_files.tar.gz are written after every part."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, parser_class=make_parser)
    test = commands.add_parser("test", description=TEST_HELP, help="the inference engine")
    test.add_argument("--images", type=int, default=1, help="so many of the test list; default 1")
    test.add_argument("--runs", type=int, default=3, help="turns of each; default 3")
    test.add_argument("--output", metavar="FILE", help="also write the numbers, as JSON")
    test.set_defaults(run=run_test)

    gpu = commands.add_parser(
        "gpu", has_config=False, description=GPU_HELP, help="all that needs a GPU"
    )
    gpu.add_argument("--parts", default=",".join(SHARES), help="of them; default all: %(default)s")
    gpu.add_argument("--budget", type=float, default=540, help="seconds in all; default 540")
    gpu.add_argument("--output", type=Path, default=ROOT / "exp/benchmark_gpu", metavar="FOLDER")
    gpu.add_argument("--camvid", type=Path, default=ROOT / "dataset/camvid", metavar="FOLDER")
    gpu.add_argument("--weights", default=str(ROOT / "initmodel/resnet50_v1.pth"), metavar="FILE")
    small = str(ROOT / "initmodel/resnet18_v1.pth")
    gpu.add_argument("--weights-18", default=small, metavar="FILE")
    gpu.add_argument("--tiny", action="store_true", help="a dry run on the CPU, small sizes")
    gpu.set_defaults(run=run_gpu)
    args = parser.parse_args()
    args.run(args)


def make_parser(*, has_config: bool = True, **settings: Any) -> argparse.ArgumentParser:
    """The parser of a command, with --config and overrides or without."""
    return (ConfigParser if has_config else argparse.ArgumentParser)(**settings)


def run_test(args: argparse.Namespace) -> None:
    """benchmark test."""
    for name in ("images", "runs"):
        if getattr(args, name) < 1:
            raise ConfigError(f"--{name} must be at least 1, got {getattr(args, name)}")
    cfg = load_config(args.config, args.overrides)
    check_network(cfg, is_test=True)
    check_test(cfg)
    benchmark_test(cfg, config=args.config, count=args.images, runs=args.runs, output=args.output)


def run_gpu(args: argparse.Namespace) -> None:
    """benchmark gpu."""
    parts = args.parts.split(",")
    for name in parts:
        if name not in SHARES:
            raise ConfigError(f"--parts knows {', '.join(SHARES)}, got '{name}'")
    if args.budget <= 0:
        raise ConfigError(f"--budget must be above 0 seconds, got {args.budget:g}")
    settings = Settings(
        parts=parts,
        budget=args.budget,
        output=args.output.absolute(),
        data_root=args.camvid.absolute(),
        weights=args.weights,
        weights_18=args.weights_18,
        tiny=args.tiny,
    )
    print(benchmark_gpu(settings, f"python {shlex.join(sys.argv)}"))


if __name__ == "__main__":
    run_cli(main)
