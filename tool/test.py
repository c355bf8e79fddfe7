"""Test a trained network as a config says: predictions as pictures, mIoU/mAcc/aAcc, scores.json."""

import json
import sys
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from model import load_trained
from util.checkpoint import epoch_of, find_checkpoint
from util.config import ROOT, Config, check_test, config_parser, dump_config, load_config
from util.dataset import load_label
from util.error import ConfigError, DataError, run_cli
from util.image import check_sizes, read_image, read_label, write_image, write_label
from util.inference import SlidingPredictor
from util.label_map import LabelMap, load_label_map
from util.logger import Progress, RunLogger, headline, write_origin
from util.metric import ConfusionMatrix, Scores
from util.palette import colorize, load_colors, load_names, overlay
from util.precision import usable_amp
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
        )
    folder = result_folder(cfg, checkpoint)
    logger = RunLogger(folder, name="test")
    (folder / "config.yaml").write_text(dump_config(cfg), encoding="utf-8")
    write_origin(folder, root=ROOT, device=describe(device))
    logger.info(
        f"{len(samples)} pictures, scales {cfg.scales}, crop {cfg.test_h}x{cfg.test_w}, "
        + (f"{checkpoint}, {describe(device)}" if predictor else f"predictions of {folder}")
    )

    matrix = ConfusionMatrix(cfg.classes, cfg.ignore_label)
    start = time.perf_counter()
    gray_paths = [folder / "gray" / p for p in result_paths]
    test(cfg, samples, gray_paths, label_map, predictor, colors, matrix, logger)
    if cfg.split == "test":
        logger.info(f"predictions without labels are in {folder}")
        return
    protocol = {
        "checkpoint": checkpoint or None,
        "list": cfg.test_list or cfg.val_list,
        "pictures": len(samples),
        "scales": cfg.scales,
        "base_size": cfg.base_size,
        "crop": [cfg.test_h, cfg.test_w],
        "flip": True,
        "seconds": round(time.perf_counter() - start, 3),
    }
    report(matrix.scores(), names, protocol, folder, logger)


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
    epoch = epoch_of(checkpoint)
    name = Path(checkpoint).stem if epoch is None else f"epoch_{epoch}"
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
    matrix: ConfusionMatrix,
    logger: RunLogger,
) -> None:
    """Predict every picture (or, without a predictor, read its prediction), write it, count it."""
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
                matrix.update(pred, label)
            if i % cfg.print_freq == 0 or i == len(samples):
                accuracy = "" if cfg.split == "test" else f" Accuracy {matrix.scores().aacc:.4f}"
                logger.info(f"Test: [{i}/{len(samples)}] {progress.line()}{accuracy}")
        for write in writes:
            write.result()


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


def report(
    scores: Scores, names: list[str], protocol: dict[str, Any], folder: Path, logger: RunLogger
) -> None:
    """The table of classes and the headline on the console; all of it in scores.json."""
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
    logger.info(f"Eval result: {headline(scores)}")
    content = {**asdict(scores), "names": names, "protocol": protocol}
    (folder / "scores.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    logger.info(f"results are in {folder}")


if __name__ == "__main__":
    run_cli(main)
