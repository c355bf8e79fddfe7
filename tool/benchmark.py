"""Compare the speed and memory of this project with plain implementations on this machine."""

import argparse
import shlex
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from util.error import ConfigError, run_cli  # isort: split

import torch

from model import check_network
from util.config import ConfigParser, check_test, load_config
from util.config.load import ROOT
from util.distributed import single_device
from util.extra.benchmark import data, inference, memory, metric, training
from util.extra.benchmark.gpu import SHARES, Settings, benchmark_gpu
from util.extra.benchmark.machine import about
from util.extra.benchmark.parts import apart
from util.extra.benchmark.record import Record

HOUR = 3600.0  # time limit in seconds for each part of `all`
PARTS = {
    "data": "augmentation (stepwise and fused), image decoders, and loading, on one core",
    "step": "a training step: a plain script and this project in several modes",
    "test": "the inference engine: the plain loop (one window and its mirror image at a time, "
    "probabilities in float64 NumPy) and the engine of tool/test.py in turn, at one scale and at "
    "six; medians over runs and images; the ratio is the median of the ratios of each turn",
    "metric": "counting pixels: histograms, this project's matrix, torchmetrics",
    "memory": "peak memory of a training step and of testing a large image",
    "all": "all of these, each in its own process",
}
WITHOUT_CONFIG = ("data", "metric")

GPU_HELP = """Everything that needs a GPU: hardware ceilings, the tests marked gpu and the golden
numbers (env); training steps of the large networks in every mode (step); inference (test); the toy
recipe, killed and resumed (resume); CamVid from ImageNet weights: PSPNet18 with both augmentations
(augment), PSPNet50 for as long as time allows (camvid). A part whose data or weights are missing is
skipped and says so. Rows are appended to gpu.jsonl in the output folder; gpu.json, gpu.md and
gpu_files.tar.gz are written after every part."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, parser_class=make_parser)
    for name, text in PARTS.items():
        own = commands.add_parser(
            name, has_config=name not in WITHOUT_CONFIG, description=text, help=text.split(":")[0]
        )
        if name != "memory":
            own.add_argument("--runs", type=int, default=3, help="repetitions; default 3")
        own.add_argument("--output", type=Path, metavar="FILE.json", help="also writes FILE.md")
        if name in ("test", "all"):
            own.add_argument(
                "--images", type=int, default=1, help="images of the test list; default 1"
            )
        own.set_defaults(run=run_here)
    gpu = commands.add_parser(
        "gpu", has_config=False, description=GPU_HELP, help="everything that needs a GPU"
    )
    gpu.add_argument("--parts", default=",".join(SHARES), help="parts to run; default: %(default)s")
    gpu.add_argument("--budget", type=float, default=540, help="total time in seconds; default 540")
    gpu.add_argument(
        "--output",
        type=Path,
        default=ROOT / "exp/benchmark_gpu",
        metavar="FOLDER",
        help="for the results; default exp/benchmark_gpu",
    )
    gpu.add_argument(
        "--camvid",
        type=Path,
        default=ROOT / "dataset/camvid",
        metavar="FOLDER",
        help="prepared CamVid, for augment and camvid; default dataset/camvid",
    )
    for option, part, default in (
        ("--weights", "camvid", "initmodel/resnet50_v1.pth"),
        ("--weights-18", "augment", "initmodel/resnet18_v1.pth"),
    ):
        text = f"ImageNet weights for {part}; default {default}"
        gpu.add_argument(option, default=str(ROOT / default), metavar="FILE", help=text)
    gpu.add_argument("--tiny", action="store_true", help="dry run on the CPU with small sizes")
    gpu.set_defaults(run=run_gpu)
    args = parser.parse_args()
    args.run(args)


def make_parser(*, has_config: bool = True, **settings: Any) -> argparse.ArgumentParser:
    """Create the parser of a command, with or without --config and overrides."""
    return (ConfigParser if has_config else argparse.ArgumentParser)(**settings)


def run_here(args: argparse.Namespace) -> None:
    """Run one part here, or all parts, each in its own process."""
    for name in ("images", "runs"):
        if getattr(args, name, 1) < 1:
            raise ConfigError(f"--{name} must be at least 1, got {getattr(args, name)}")
    if args.output and args.output.suffix != ".json":
        raise ConfigError(f"--output must be a file named .json, got {args.output}")
    names, cfg = [args.command], None
    if args.command not in WITHOUT_CONFIG:
        cfg = load_config(args.config, args.overrides)
        check_network(cfg, is_test=True)
        check_test(cfg)
    if args.command == "all":
        names = [name for name in PARTS if name != "all"]
    device = apart(partial(single_device, cfg.test_gpu if cfg else [0]))
    assert isinstance(device, torch.device)
    count, runs = getattr(args, "images", 1), getattr(args, "runs", 1)
    works = {
        "data": partial(data.run, runs=runs),
        "metric": partial(metric.run, runs=runs),
        "step": partial(training.run, cfg=cfg, runs=runs, device=device),
        "test": partial(inference.run, cfg=cfg, count=count, runs=runs, device=device),
        "memory": partial(memory.run, cfg=cfg, device=device),
    }
    with tempfile.TemporaryDirectory() as folder:
        record = Record((args.output or Path(folder) / "found.json").with_suffix(""))
        record.start()
        for name in names:
            if len(names) == 1:
                works[name](record)
            else:
                has_ended = apart(partial(run_part, works[name], record), seconds=HOUR)
                if not has_ended:
                    record.add(name, name, note="failed or took too long")
        print(record.write(about(device, f"python {shlex.join(sys.argv)}")))


def run_part(work: Callable[[Record], None], record: Record) -> bool:
    """Run a part in its own process; return True, which tells its end from a failure."""
    work(record)
    return True


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
