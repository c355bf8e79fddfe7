"""Test a trained network as a config says: predictions as pictures, scores.json, report.html.

confusion.npz holds the counts behind the scores; tool/compare.py compares two such folders.
"""

import hashlib
import json
import sys
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from model import load_trained
from util.bootstrap import CONFIDENCE, DRAWS, SEED, Areas, draw_counts, intervals
from util.checkpoint import find_checkpoint
from util.config import ROOT, Config, check_test, config_parser, dump_config, load_config
from util.dataset import load_label
from util.error import ConfigError, DataError, run_cli
from util.image import check_sizes, read_image, read_label, write_image, write_label
from util.inference import SlidingPredictor, window_starts
from util.label_map import LabelMap, load_label_map
from util.logger import Progress, RunLogger, headline, write_origin
from util.metric import PictureCounts, Scores
from util.palette import colorize, load_colors, load_names, overlay
from util.precision import usable_amp
from util.report import Results, write_report
from util.runtime import describe, main_device, visible_gpus
from util.samples import Sample, read_list, result_names

WAITING_WRITES = 8  # pictures that may wait for the disk before the network does


def main() -> None:
    args = config_parser(__doc__).parse_args()
    cfg = load_config(args.config, args.overrides)
    check_test(cfg)
    names = load_names(cfg.names_path, cfg.classes)
    colors = load_colors(cfg.colors_path, cfg.classes)
    samples, result_paths = test_samples(cfg)
    label_map = load_label_map(
        cfg.label_map,
        ignore_ids=cfg.ignore_ids,
        classes=cfg.classes,
        ignore_label=cfg.ignore_label,
    )
    device = main_device(visible_gpus(cfg.test_gpu, say=print))
    checkpoint, predictor = "", None
    if not (cfg.has_prediction and cfg.save_folder):
        checkpoint = find_checkpoint(cfg.model_path, cfg.save_path)
    if not cfg.has_prediction:
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
    folder = result_folder(cfg, checkpoint)
    logger = RunLogger(folder, name="test")
    (folder / "config.yaml").write_text(dump_config(cfg), encoding="utf-8")
    origin = write_origin(folder, root=ROOT, device=describe(device))
    logger.info(
        f"{len(samples)} pictures, scales {cfg.scales}, crop {cfg.test_h}x{cfg.test_w}, "
        + (f"{checkpoint}, {describe(device)}" if predictor else f"predictions of {folder}")
    )

    start = time.perf_counter()
    gray_paths = [folder / "gray" / p for p in result_paths]
    counts = test(cfg, samples, gray_paths, label_map, predictor, colors, logger)
    seconds = time.perf_counter() - start
    if cfg.split == "test":
        logger.info(f"predictions without labels are in {folder}")
        return

    def load(i: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        label = load_label(samples[i].label, label_map, classes=cfg.classes)
        return read_image(samples[i].image), label, read_prediction(gray_paths[i])

    protocol = describe_protocol(cfg, checkpoint, predictor, origin)
    protocol |= {"pictures": len(samples), "seconds": round(seconds, 3)}
    protocol["pictures_per_second"] = round(len(samples) / seconds, 3)
    pictures = [path.removesuffix(".png") for path in result_paths]
    report(counts, protocol, names, colors, pictures, load, logger)


def test_samples(cfg: Config) -> tuple[list[Sample], list[str]]:
    """The pictures to test, TEST.index_start and index_step applied, and their result names."""
    list_path = cfg.test_list or cfg.val_list
    if not list_path:
        raise ConfigError("TEST.test_list is empty: set it in the config or as an override")
    samples = read_list(list_path, cfg.data_root, has_labels=cfg.split != "test")
    names = result_names(samples)  # of the whole list, so that a part gets the same names
    if cfg.index_start >= len(samples):
        raise ConfigError(
            f"TEST.index_start {cfg.index_start} is past the end of {list_path}, which holds "
            f"{len(samples)} pictures"
        )
    end = cfg.index_start + cfg.index_step if cfg.index_step else len(samples)
    part = slice(cfg.index_start, end)
    return samples[part], [f"{name}.png" for name in names[part]]


def result_folder(cfg: Config, checkpoint: str) -> Path:
    """TEST.save_folder, or <run folder>/result/epoch_<N>/<split>/<ss|ms>."""
    if cfg.save_folder:
        return Path(cfg.save_folder)
    name = Path(checkpoint).stem.removeprefix("train_")
    scales = "ss" if len(cfg.scales) == 1 else "ms"
    run = Path(cfg.save_path).parent if cfg.save_path else Path(checkpoint).parent.parent
    return run / "result" / name / cfg.split / scales


def test(
    cfg: Config,
    samples: list[Sample],
    gray_paths: list[Path],
    label_map: LabelMap,
    predictor: SlidingPredictor | None,
    colors: np.ndarray,
    logger: RunLogger,
) -> PictureCounts:
    """Predict every picture (or, without a predictor, read its prediction), write it, count it."""
    counts = PictureCounts(cfg.classes, cfg.ignore_label)
    progress = Progress(done=0, total=len(samples))
    pairs = zip(samples, gray_paths, strict=True)
    with ThreadPoolExecutor(1) as pool:
        writes: deque[Future] = deque()
        for i, (sample, gray) in enumerate(
            progress.steps(pairs, length=len(samples), title="Test"), 1
        ):
            if predictor is None:
                pred = read_prediction(gray)
            else:
                image = read_image(sample.image)
                pred = predictor.predict(image)
                writes.append(pool.submit(write_result, gray, image, pred, colors))
                while len(writes) > WAITING_WRITES or (writes and writes[0].done()):
                    writes.popleft().result()
            if sample.label is not None:
                label = load_label(sample.label, label_map, classes=cfg.classes)
                check_sizes(pred, label, sample.image, sample.label)
                counts.add(pred, label)
            if i % cfg.print_freq == 0 or i == len(samples):
                scores = counts.total.scores()
                accuracy = "" if cfg.split == "test" else f" Accuracy {scores.aacc:.4f}"
                logger.info(f"Test: [{i}/{len(samples)}] {progress.line()}{accuracy}")
        for write in writes:
            write.result()
    return counts


def read_prediction(gray: Path) -> np.ndarray:
    """A label map that an earlier test wrote."""
    if not gray.is_file():
        raise DataError(
            f"no prediction {gray}: TEST.has_prediction scores existing ones; set it to False "
            "to make them, or TEST.save_folder to the folder that has them"
        )
    return read_label(gray)


def write_result(gray: Path, image: np.ndarray, pred: np.ndarray, colors: np.ndarray) -> None:
    """gray/<name>.png (ids), color/<name>.png and overlay/<name>.png."""
    top = next(p for p in gray.parents if p.name == "gray").parent
    name = gray.relative_to(top / "gray")
    write_label(gray, pred)
    write_image(top / "color" / name, colorize(pred, colors))
    write_image(top / "overlay" / name, overlay(image, pred, colors))


def describe_protocol(
    cfg: Config, checkpoint: str, predictor: SlidingPredictor | None, origin: dict[str, Any]
) -> dict[str, Any]:
    """All that a score depends on; what is unknown of predictions made earlier is None."""
    list_path, crop = cfg.test_list or cfg.val_list, (cfg.test_h, cfg.test_w)
    stride = [window_starts(2 * side, side)[1] for side in crop]  # where the second window starts
    return {
        "checkpoint": checkpoint or None,
        "checkpoint_sha256": sha256(checkpoint) if checkpoint else None,
        "list": list_path,
        "list_sha256": sha256(list_path),
        "has_prediction": cfg.has_prediction,
        "scales": cfg.scales,
        "base_size": cfg.base_size,
        "mode": cfg.test_mode,
        "crop": list(crop),
        "stride": stride,
        "flip": True,
        "precision": predictor and {"off": "float32"}.get(predictor.amp, predictor.amp),
        "device": origin["device"],
        "versions": {name: origin[name] for name in ("python", "torch", "numpy", "opencv")},
        "git_commit": origin["git_commit"],
        "has_git_diff": origin["has_git_diff"],
    }


def sha256(path: str) -> str:
    """Of a file's bytes, in hexadecimal."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def report(
    counts: PictureCounts,
    protocol: dict[str, Any],
    names: list[str],
    colors: np.ndarray,
    pictures: list[str],
    load: Callable[[int], tuple[np.ndarray, np.ndarray, np.ndarray]],
    logger: RunLogger,
) -> None:
    """The scores on the console, in scores.json, confusion.npz and report.html."""
    folder, matrix, areas = logger.folder, counts.total.matrix.numpy(), Areas.stack(counts.areas)
    scores, ends = counts.total.scores(), intervals(areas, draw_counts(len(pictures)))
    print_classes(scores, names, logger)
    low, high = ends.miou
    logger.info(f"mIoU with pictures resampled: {low:.4f} to {high:.4f} (95 % interval)")
    logger.info(f"Eval result: {headline(scores)}")
    content = {
        **asdict(scores),
        "miou_interval": None if np.isnan(ends.miou).any() else ends.miou.tolist(),
        "iou_class_interval": [None if np.isnan(e).any() else e.tolist() for e in ends.iou_class],
        "bootstrap": {"draws": DRAWS, "seed": SEED, "confidence": CONFIDENCE},
        "names": names,
        "protocol": protocol,
    }
    (folder / "scores.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    np.savez_compressed(folder / "confusion.npz", matrix=matrix, pictures=pictures, **vars(areas))
    results = Results(content, matrix, areas, counts.picture_of, pictures, colors, load)
    write_report(folder / "report.html", results, title=str(folder))
    logger.info(f"results are in {folder}, report.html shows them")


def print_classes(scores: Scores, names: list[str], logger: RunLogger) -> None:
    """The table of classes."""
    width = max(len(name) for name in names)
    logger.info(f"{'id':>4} {'class':<{width}}    IoU    Acc")
    for i, name in enumerate(names):
        note = "  absent" if i in scores.absent else ""
        iou, acc = scores.iou_class[i], scores.acc_class[i]
        logger.info(f"{i:>4} {name:<{width}} {iou:.4f} {acc:.4f}{note}")
    if scores.absent:
        logger.info(
            f"{len(scores.absent)} of {len(names)} classes are absent from labels and predictions "
            f"and count 0; mean IoU over the others: {scores.miou_present:.4f}"
        )


if __name__ == "__main__":
    run_cli(main)
