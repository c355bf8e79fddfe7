"""Draw a contact sheet of training samples with label overlays, before and after augmentation."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from util.error import ConfigError, DataError, UserError, run_cli, show  # isort: split

import cv2
import numpy as np
from PIL import Image, ImageDraw

from model import check_network
from util.config import check_train, config_parser, load_config
from util.data.dataset import SegmentationData, build_data
from util.data.image import read_note, write_image
from util.data.transform import denormalise
from util.evaluation.output import check_file
from util.palette import font_for, legend, load_colors, load_names, overlay

TILE = 240  # height of an image on the sheet
GAP, CAPTION = 6, 20
NOTE = "contact sheet"  # marks our PNG files, which may be overwritten
HEADS = ("image", "label overlay", "augmented", "label overlay", "augmented again")


def main() -> None:
    parser = config_parser(__doc__)
    parser.add_argument("--output", type=Path, required=True, metavar="FILE.png")
    parser.add_argument("--count", type=int, default=6, help="samples, evenly spaced in the list")
    args = parser.parse_args()
    if args.count < 1:
        raise ConfigError(f"--count must be at least 1, got {args.count}")
    if args.output.suffix.lower() != ".png":
        raise ConfigError(f"--output must end in .png, got {args.output}")
    check_file(args.output, key="--output", is_ours=is_sheet)
    cfg = load_config(args.config, args.overrides)
    check_train(cfg)
    check_network(cfg)
    names = load_names(cfg.names_path, cfg.classes)
    colors = load_colors(cfg.colors_path, cfg.classes)
    data = build_data(cfg, is_training=True)
    chosen = np.unique(np.linspace(0, len(data) - 1, min(args.count, len(data))).astype(int))
    rows, present = [], set()
    for index in chosen.tolist():
        row, ids = draw_row(data, index, colors)
        rows.append(row)
        present |= ids
    shown = sorted(present & set(range(cfg.classes)))
    sheet = draw_sheet(rows, [names[i] for i in shown], colors[shown])
    write_image(args.output, sheet, note=NOTE)
    print(f"{len(rows)} of {len(data)} training samples, {len(shown)} classes: {args.output}")


def is_sheet(path: Path) -> bool:
    """Whether this tool wrote the file."""
    try:
        return read_note(path) == NOTE
    except DataError:
        return False


def draw_row(data: SegmentationData, index: int, colors: np.ndarray) -> tuple[np.ndarray, set[int]]:
    """Draw a sample's tiles side by side under its name; return them and the ids they show."""
    image, label = data.load(index)
    tiles, ids = [image, overlay(image, label, colors)], set(np.unique(label).tolist())
    for epoch in (0, 1):
        augmented = data[epoch, index]
        if isinstance(augmented, UserError):
            raise augmented
        image, mask = denormalise(augmented[0]), augmented[1].numpy()
        tiles += [image, overlay(image, mask, colors)][epoch:]
        ids |= set(np.unique(mask).tolist())
    tiles = [
        np.pad(scaled(tile), ((0, 0), (0, GAP), (0, 0)), constant_values=255) for tile in tiles
    ]
    row = np.hstack(tiles)
    return np.vstack([caption(str(data.samples[index].image), row.shape[1]), row]), ids


def scaled(tile: np.ndarray) -> np.ndarray:
    """Scale an image to the height of the tiles."""
    width = max(1, round(tile.shape[1] * TILE / tile.shape[0]))
    return cv2.resize(tile, (width, TILE), interpolation=cv2.INTER_AREA)


def caption(text: str, width: int) -> np.ndarray:
    """Draw a line of text as (CAPTION, width, 3); a text that is too long keeps its end."""
    font, text = font_for(show(text, limit=len(text)))
    while font.getlength(text) > width - 8:
        text = text[1 + len(text) // 20 :]
    strip = Image.new("RGB", (width, CAPTION), "white")
    ImageDraw.Draw(strip).text((4, 3), text, fill="black", font=font)
    return np.array(strip)


def draw_sheet(rows: list[np.ndarray], names: list[str], colors: np.ndarray) -> np.ndarray:
    """Stack the rows and add a legend."""
    width = max(row.shape[1] for row in rows)
    head = caption(" | ".join(HEADS) + " | pixels without a tint are void", width)
    strips = [head, *rows, np.full((GAP, width, 3), 255, np.uint8)]
    if names:
        strips.append(legend(names, colors, width))
    padded = [
        np.pad(s, ((0, 0), (0, width - s.shape[1]), (0, 0)), constant_values=255) for s in strips
    ]
    return np.vstack(padded)


if __name__ == "__main__":
    run_cli(main)
