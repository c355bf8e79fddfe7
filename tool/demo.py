"""Predict one picture, or all pictures of a folder: label map, colour map and overlay."""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from model import load_trained
from util.checkpoint import find_checkpoint
from util.config import check_test, config_parser, load_config
from util.error import ConfigError, DataError, nearest, run_cli
from util.image import IMAGE_SUFFIXES, read_image, write_image, write_label
from util.inference import SlidingPredictor
from util.palette import (
    class_shares,
    colorize,
    heat_overlay,
    legend,
    load_colors,
    load_names,
    overlay,
)
from util.precision import usable_amp
from util.runtime import main_device, visible_gpus


def main() -> None:
    parser = config_parser(__doc__)
    parser.add_argument("--image", required=True, help="a picture, or a folder of pictures")
    parser.add_argument("--output", help="folder for the results; default: <run folder>/demo")
    parser.add_argument(
        "--attention", metavar="X,Y", help="PSANet: also show what this pixel collects, distributes"
    )
    args = parser.parse_args()
    cfg = load_config(args.config, args.overrides)
    check_test(cfg)
    images = find_images(Path(args.image))
    pixel = parse_pixel(args.attention, cfg.arch) if args.attention else None
    names = load_names(cfg.names_path, cfg.classes)
    colors = load_colors(cfg.colors_path, cfg.classes)
    checkpoint = find_checkpoint(cfg.model_path, cfg.save_path)
    device = main_device(visible_gpus(cfg.test_gpu, say=print))
    predictor = SlidingPredictor(
        load_trained(cfg, checkpoint),
        classes=cfg.classes,
        crop=(cfg.test_h, cfg.test_w),
        base_size=cfg.base_size,
        scales=cfg.scales,
        device=device,
        amp=usable_amp(cfg.test_amp, device, say=print),
        mode=cfg.test_mode,
        batch_windows=cfg.batch_windows,
        compiled=cfg.test_compile,
    )
    default = Path(cfg.save_path or Path(checkpoint).parent).parent / "demo"
    output = Path(args.output) if args.output else default
    for path, name in images:
        image = read_image(path)
        pred = predictor.predict(image)
        write_results(image, pred, output / name, names, colors)
        if pixel:
            write_attention(predictor, image, pixel, output / name)


def find_images(path: Path) -> list[tuple[Path, str]]:
    """Pictures with the name of their results: one file, or all below a folder, sorted."""
    if path.is_file():
        return [(path, path.stem)]
    if not path.exists():
        siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        near = nearest(path.name, siblings)
        hint = f"; nearest: {path.parent / near[0]}" if near else ""
        raise DataError(f"--image: no file or folder {path}{hint}")
    found = sorted(p for p in path.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
    if not found:
        raise DataError(f"--image: folder {path} holds no picture ({', '.join(IMAGE_SUFFIXES)})")
    stems = [p.relative_to(path).with_suffix("") for p in found]
    return [
        (p, str(stem if stems.count(stem) == 1 else p.relative_to(path)))
        for p, stem in zip(found, stems, strict=True)
    ]


def write_results(
    image: np.ndarray, pred: np.ndarray, stem: Path, names: list[str], colors: np.ndarray
) -> None:
    """<stem>_gray.png (ids), _color.png, _overlay.png (with legend); says what was found where."""
    shares = class_shares(pred, len(names))
    present = [i for i in np.argsort(-shares, kind="stable") if shares[i] > 0]
    labels = [f"{names[i]} {shares[i]:.1%}" for i in present]
    strip = legend(labels, colors[present], image.shape[1])
    paths = {
        kind: stem.with_name(f"{stem.name}_{kind}.png") for kind in ("gray", "color", "overlay")
    }
    write_label(paths["gray"], pred)
    write_image(paths["color"], colorize(pred, colors))
    write_image(paths["overlay"], np.vstack([overlay(image, pred, colors), strip]))
    print(f"{stem.name}: {', '.join(labels)}")
    for path in paths.values():
        print(f"  {path}")


def parse_pixel(text: str, arch: str) -> tuple[int, int]:
    """`120,80` -> (x, y)."""
    if arch != "psa":
        raise ConfigError(f"--attention needs a PSANet (TRAIN.arch psa), got TRAIN.arch {arch}")
    try:
        x, y = (int(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(
            f"--attention must be x,y in pixels such as 120,80, got '{text}'"
        ) from None
    return x, y


def write_attention(
    predictor: SlidingPredictor, image: np.ndarray, pixel: tuple[int, int], stem: Path
) -> None:
    """<stem>_collect.png and <stem>_distribute.png: heat maps of the pixel's attention."""
    x, y = pixel
    height, width = image.shape[:2]
    if not (0 <= x < width and 0 <= y < height):
        raise ConfigError(
            f"--attention {x},{y} lies outside the picture: x must be 0..{width - 1}, "
            f"y 0..{height - 1}"
        )
    window, row, column, box = predictor.window_at(image, x, y)
    for name, heat in predictor.model.attention_of(window, row, column).items():
        path = stem.with_name(f"{stem.name}_{name}.png")
        write_image(path, heat_overlay(image, heat.cpu().numpy(), box, pixel))
        print(f"  {path}")


if __name__ == "__main__":
    run_cli(main)
