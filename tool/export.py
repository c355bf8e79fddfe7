"""Export a trained network to one file, ONNX or a torch.export program, and check that it agrees.

The file takes uint8 RGB images (N, H, W, 3) of any size and gives class ids (N, H, W).
"""

import sys
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from util.error import ConfigError, run_cli  # isort: split

from model import check_network, load_trained
from util.config import check_test, config_parser, dump_config, load_config
from util.evaluation.output import check_file, replacing
from util.extra.export import (
    ExportedModel,
    export_network,
    metadata_of,
    parity,
    write_metadata,
)
from util.palette import load_colors, load_names
from util.training.checkpoint import find_checkpoint

SUFFIXES = {"onnx": ".onnx", "pt2": ".pt2"}


def main() -> None:
    parser = config_parser(__doc__)
    parser.add_argument("--output", required=True, type=Path, help="file to write")
    parser.add_argument("--format", default="onnx", choices=tuple(SUFFIXES), help="default: onnx")
    parser.add_argument(
        "--probabilities",
        action="store_true",
        help="give probabilities (N, classes, H, W) instead of class ids",
    )
    args = parser.parse_args()
    if args.output.suffix != SUFFIXES[args.format]:
        raise ConfigError(
            f"--output {args.output} must end in {SUFFIXES[args.format]} (--format {args.format})"
        )
    check_file(args.output, key="--output")
    cfg = load_config(args.config, args.overrides)
    check_test(cfg)
    check_network(cfg, is_test=True)
    names = load_names(cfg.names_path, cfg.classes)
    colors = load_colors(cfg.colors_path, cfg.classes)
    checkpoint = str(find_checkpoint(cfg.model_path, cfg.save_path))
    network = load_trained(cfg, checkpoint)
    fixed = (cfg.test_h, cfg.test_w) if cfg.arch == "psa" else None  # its attention has that size
    if fixed:
        print(f"PSANet works at its training crop alone: images must be {fixed[0]} x {fixed[1]}")
    with warnings.catch_warnings(), replacing(args.output) as path:
        warnings.simplefilter("ignore")
        export_network(network, path, probabilities=args.probabilities, fixed=fixed)
        if args.format == "onnx":
            metadata = metadata_of(cfg, dump_config(cfg), names, colors, checkpoint)
            write_metadata(path, metadata)
    model = ExportedModel(args.output)
    print("agreement with this project's predictor (whole image, no mirror image):")
    for line in parity(model, network, classes=cfg.classes, fixed=fixed):
        print(f"  {line}")
    print(f"wrote {args.output}, {args.output.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    run_cli(main)
