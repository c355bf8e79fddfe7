"""Run a trained network on an image, a folder of images, a video file or a camera.

Writes label maps, colour maps, overlays and class shares. With --model FILE.onnx instead of
--config it runs an exported file on images: python tool/demo.py --model FILE.onnx --help
"""

import argparse
import csv
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from util.error import CheckpointError, ConfigError, run_cli  # isort: split

import numpy as np
from tqdm import tqdm

from model import check_network, load_trained
from util.config import check_test, config_parser, load_config
from util.data.image import write_image, write_label
from util.distributed import single_device
from util.distributed.device import usable_amp
from util.evaluation.output import check_targets, make_folder
from util.extra.demo_files import (
    NOTE,
    TABLE_HEAD,
    each_image,
    image_path,
    is_ours,
    open_source,
    targets,
    video_paths,
)
from util.extra.export.model import ExportedModel
from util.extra.video import VideoReader, VideoWriter
from util.inference import SlidingPredictor, build_predictor
from util.logger import start_logging
from util.palette import (
    class_shares,
    colorize,
    heat_overlay,
    legend,
    load_colors,
    load_names,
    overlay,
)
from util.training.checkpoint import find_checkpoint

LEGEND_HEIGHT = 54  # pixels; fixed for videos, whose frames all have the same size
SHOWN_SHARE = 0.01  # smaller classes are left out of a video's legend


def main() -> None:
    if any(word == "--model" or word.startswith("--model=") for word in sys.argv):
        return show_exported()
    args = parse_args()
    cfg = load_config(args.config, args.overrides)
    check_test(cfg)
    check_network(cfg, is_test=True)
    start_logging()
    pixel = parse_pixel(args.attention, cfg.arch) if args.attention else None
    names = load_names(cfg.names_path, cfg.classes)
    colors = load_colors(cfg.colors_path, cfg.classes)
    source = open_source(args.image)
    if pixel and isinstance(source, VideoReader):
        raise ConfigError("--attention works on images: give --image an image or a folder")
    checkpoint = find_checkpoint(cfg.model_path, cfg.save_path)
    default = Path(cfg.save_path or Path(checkpoint).parent).parent / "demo"
    output = Path(args.output) if args.output else default
    make_folder(output, key="--output")
    check_targets(
        targets(source, output, has_attention=bool(pixel)),
        inputs=[] if isinstance(source, VideoReader) else [path for path, _ in source],
        is_ours=is_ours,
        key="--output",
    )
    device = single_device(cfg.test_gpu)
    amp = usable_amp(cfg.test_amp, device)
    predictor = build_predictor(cfg, load_trained(cfg, checkpoint), device=device, amp=amp)
    if isinstance(source, VideoReader):
        with source as video:
            show_video(video, predictor, output / video.name, names, colors)
        return
    for image, name in each_image(source):
        pred = predictor.predict(image)
        show_image(image, pred, output / name, names, colors)
        if pixel:
            show_attention(predictor, image, pixel, output / name)


def show_exported() -> None:
    """Predict images with a file exported by tool/export.py, which includes names and colours."""
    parser = argparse.ArgumentParser(description=show_exported.__doc__, allow_abbrev=False)
    parser.add_argument("--model", required=True, help="an .onnx file written by tool/export.py")
    parser.add_argument("--image", required=True, help="an image or a folder of images")
    parser.add_argument("--output", type=Path, default=Path("demo"), help="default: demo")
    args = parser.parse_args()
    start_logging()
    model, source = ExportedModel(args.model), open_source(args.image)
    if isinstance(source, VideoReader):
        raise ConfigError("--model works on images: give --image an image or a folder")
    names, colors = model.names_and_colors()
    make_folder(args.output, key="--output")
    inputs = [path for path, _ in source]
    found = targets(source, args.output, has_attention=False)
    check_targets(found, inputs=inputs, is_ours=is_ours, key="--output")
    for image, name in each_image(source):
        pred = model.predict(image)
        if pred.max() >= len(names):
            raise CheckpointError(
                f"{args.model} gives class {pred.max()}, but names {len(names)} classes: export it "
                "again"
            )
        show_image(image, pred, args.output / name, names, colors)


def parse_args() -> argparse.Namespace:
    parser = config_parser(__doc__)
    parser.add_argument(
        "--image",
        required=True,
        help="an image, a folder of images, a video file, or the number of a camera (0, 1, ...; "
        "Ctrl-C ends)",
    )
    parser.add_argument("--output", help="folder for the results; default: <run folder>/demo")
    parser.add_argument(
        "--attention", metavar="X,Y", help="PSANet: also draw this pixel's collect/distribute maps"
    )
    return parser.parse_args()


def show_image(
    image: np.ndarray, pred: np.ndarray, stem: Path, names: list[str], colors: np.ndarray
) -> None:
    """Write <stem>_gray.png (ids), _color.png and _overlay.png (with legend), and print classes."""
    shares = class_shares(pred, len(names))
    present = [i for i in np.argsort(-shares, kind="stable") if shares[i] > 0]
    labels = [f"{names[i]} {shares[i]:.1%}" for i in present]
    strip = legend(labels, colors[present], image.shape[1])
    paths = [image_path(stem, kind) for kind in ("gray", "color", "overlay")]
    write_label(paths[0], pred, note=NOTE)
    write_image(paths[1], colorize(pred, colors), note=NOTE)
    write_image(paths[2], np.vstack([overlay(image, pred, colors), strip]), note=NOTE)
    say(f"{stem.name}: {', '.join(labels)}", *(f"  {path}" for path in paths))


def show_video(
    video: VideoReader,
    predictor: SlidingPredictor,
    stem: Path,
    names: list[str],
    colors: np.ndarray,
) -> None:
    """Write <stem>_overlay.mp4 and <stem>_shares.csv (frame, seconds, share of each class).

    Both files are complete even after Ctrl-C (to stop a camera) or if the video is truncated.
    """
    path, table_path = video_paths(stem)
    total, frames, start = np.zeros(len(names)), 0, time.perf_counter()
    with (
        VideoWriter(path, fps=video.fps) as writer,
        table_path.open("w", newline="", encoding="utf-8") as file,
    ):
        table = csv.writer(file)
        table.writerow([*TABLE_HEAD, *names])
        try:
            for frame in tqdm(video, desc="Demo", total=video.count, leave=False, disable=None):
                seconds = time.perf_counter() - start if video.is_camera else frames / video.fps
                pred = predictor.predict(frame)
                shares = class_shares(pred, len(names))
                writer.write(frame_image(frame, pred, shares, names, colors))
                table.writerow([frames, f"{seconds:.3f}", *(f"{share:.4f}" for share in shares)])
                total, frames = total + shares, frames + 1
        except KeyboardInterrupt:
            if not video.is_camera:
                raise
    mean = total / max(1, frames)
    found = (f"{names[i]} {mean[i]:.1%}" for i in np.argsort(-mean, kind="stable") if mean[i] > 0)
    of = f" of {video.count}" if video.count and video.count != frames else ""
    say(f"{stem.name}: {frames}{of} frames: {', '.join(found)}", f"  {path}", f"  {table_path}")


def frame_image(
    frame: np.ndarray, pred: np.ndarray, shares: np.ndarray, names: list[str], colors: np.ndarray
) -> np.ndarray:
    """Draw overlay and legend, ordered by id so that classes keep their place between frames."""
    shown = np.flatnonzero(shares >= SHOWN_SHARE)
    labels = [f"{names[i]} {shares[i]:.0%}" for i in shown]
    strip = legend(labels, colors[shown], frame.shape[1], height=LEGEND_HEIGHT)
    return np.vstack([overlay(frame, pred, colors), strip])


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


def show_attention(
    predictor: SlidingPredictor, image: np.ndarray, pixel: tuple[int, int], stem: Path
) -> None:
    """Write the pixel's attention as heat maps <stem>_collect.png and <stem>_distribute.png."""
    x, y = pixel
    height, width = image.shape[:2]
    if not (0 <= x < width and 0 <= y < height):
        raise ConfigError(
            f"--attention {x},{y} is outside the image: x must be 0..{width - 1}, y 0..{height - 1}"
        )
    window, row, column, box = predictor.window_at(image, x, y)
    for name, heat in predictor.model.attention_of(window, row, column).items():
        path = image_path(stem, name)
        write_image(path, heat_overlay(image, heat.cpu().numpy(), box, pixel), note=NOTE)
        say(f"  {path}")


def say(*lines: str) -> None:
    """Print above the progress bar."""
    for line in lines:
        tqdm.write(line)


if __name__ == "__main__":
    run_cli(main)
