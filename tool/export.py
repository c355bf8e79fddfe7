"""Export a trained network to ONNX or a torch.export program, and verify the exported file.

It maps uint8 RGB images (N, H, W, 3) of any size to class ids (N, H, W). --int8 writes a second
file with 8-bit weights and activations.
"""

import sys
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from util.error import ConfigError, run_cli  # isort: split

from model import check_network, load_trained
from util.config import Config, check_test, config_parser, dump_config, load_config
from util.data.file import replacing
from util.evaluation.output import check_file
from util.extra.export.int8 import agreement, calibration_images, quantise
from util.extra.export.model import ExportedModel
from util.extra.export.parity import parity
from util.extra.export.write import export_network, metadata_of, write_metadata
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
        help="output probabilities (N, classes, H, W) instead of class ids",
    )
    parser.add_argument(
        "--int8",
        type=Path,
        metavar="FOLDER_OR_LIST",
        help="also write OUTPUT.int8.onnx with 8-bit weights and activations, calibrated on these "
        "images: a folder or a list file of training images",
    )
    args = parser.parse_args()
    if args.output.suffix != SUFFIXES[args.format]:
        raise ConfigError(
            f"--output {args.output} must end in {SUFFIXES[args.format]} (--format {args.format})"
        )
    if args.int8 and args.format != "onnx":
        raise ConfigError(f"--int8 needs --format onnx, got {args.format}: omit one of them")
    small = args.output.with_suffix(".int8.onnx")
    for path in (args.output, *([small] if args.int8 else [])):
        check_file(path, key="--output")
    cfg = load_config(args.config, args.overrides)
    check_test(cfg)
    images = calibration_images(args.int8, cfg.data_root) if args.int8 else None
    check_network(cfg, is_test=True)
    names = load_names(cfg.names_path, cfg.classes)
    colors = load_colors(cfg.colors_path, cfg.classes)
    checkpoint = str(find_checkpoint(cfg.model_path, cfg.save_path))
    network = load_trained(cfg, checkpoint)
    fixed = fixed_size(cfg)
    if fixed and images:
        raise ConfigError("--int8 does not work with PSANet and Swin, whose input size is fixed")
    if fixed:
        print(f"the input size is fixed for this network: images must be {fixed[0]} x {fixed[1]}")
    metadata = metadata_of(cfg, dump_config(cfg), names, colors, checkpoint)
    with warnings.catch_warnings(), replacing(args.output) as path:
        warnings.simplefilter("ignore")
        export_network(
            network, path, kind=args.format, probabilities=args.probabilities, fixed=fixed
        )
        if args.format == "onnx":
            write_metadata(path, metadata)
    model = ExportedModel(args.output)
    print("agreement with this project's predictor (whole image, no mirror image):")
    for line in parity(model, network, classes=cfg.classes, fixed=fixed):
        print(f"  {line}")
    print(f"wrote {args.output}, {megabytes(args.output)}")
    if images:
        for_ranges, for_comparison = images
        with replacing(small) as path:
            quantise(args.output, path, for_ranges)
            write_metadata(path, metadata)
        share = agreement(model, ExportedModel(small), for_comparison)
        print(
            f"wrote {small}, {megabytes(small)}: ranges from {len(for_ranges)} images; {share:.2%} "
            f"of the labels of {len(for_comparison)} others are those of {args.output}"
        )


def fixed_size(cfg: Config) -> tuple[int, int] | None:
    """Return the only image size (height, width) of the exported file, None for any size.

    PSANet's attention has the size of its crop. Swin's shifted windows depend on the image size in
    a way that keeps torch's exporter busy for more than half an hour.
    """
    is_fixed = cfg.arch == "psa" or "swin" in cfg.backbone
    return (cfg.test_h, cfg.test_w) if is_fixed else None


def megabytes(path: Path) -> str:
    return f"{path.stat().st_size / 1e6:.1f} MB"


if __name__ == "__main__":
    run_cli(main)
