"""Test a trained network as a config says: predictions as images, scores.json, report.html.

confusion.npz holds the counts behind the scores; tool/compare.py compares two such folders.
"""

import json
import sys
import time
from itertools import takewhile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from util.error import EXIT_STOPPED, ConfigError, run_cli  # isort: split

import numpy as np

from model import check_network, load_trained
from util.config import ROOT, Config, check_test, config_parser, dump_config, load_config
from util.data.label_map import label_map_of, load_export
from util.data.list_file import Sample, read_list, result_names
from util.distributed import Process, StopRequest, describe, launch
from util.distributed.device import usable_amp
from util.evaluation.bootstrap import Areas, draw_counts, intervals
from util.evaluation.evaluator import Evaluator
from util.evaluation.protocol import prediction_protocol, result_folder, scoring_protocol
from util.evaluation.result_folder import ResultFolder, check_names, scores_content, table_lines
from util.extra.report.page import Results, write_report
from util.inference import build_predictor
from util.logger import RunLogger, headline, write_origin
from util.metric import ImageCounts
from util.palette import load_colors, load_names
from util.training.checkpoint import find_checkpoint


def main() -> None:
    args = config_parser(__doc__).parse_args()
    cfg = load_config(args.config, args.overrides)
    check_test(cfg)
    check_network(cfg, is_test=True)
    launch(test, cfg, gpus=cfg.test_gpu)


def test(process: Process, cfg: Config) -> None:
    """The whole test, in one of its processes."""
    class_names = load_names(cfg.names_path, cfg.classes)
    evaluator = build_tester(cfg, process)
    results, number = evaluator.results, len(evaluator.samples)
    origin = open_folder(cfg, process, results)
    logger = RunLogger(results.path, name="test", active=process.is_main)
    logger.info(
        f"{number} images, scales {cfg.scales}, crop {cfg.test_h}x{cfg.test_w}, predictions "
        + (f"of {results.path}" if cfg.has_prediction else f"by {results.protocol['checkpoint']}")
        + f", {describe(process.device)}, processes: {process.world_size}"
    )
    start = time.perf_counter()
    counts, predicted = run(cfg, process, evaluator, logger)
    seconds = time.perf_counter() - start
    if not process.is_main:
        return
    if cfg.skip_existing:
        logger.info(f"{number - predicted} predictions were there, {predicted} were made")
    if cfg.export:
        logger.info(f"for the server: pack and send {results.submission}")
    if cfg.split == "test":
        logger.info(f"predictions without labels are in {results.path}")
        return
    protocol = {
        **results.protocol,
        **(results.found_protocol() if cfg.has_prediction else {}),
        **scoring_protocol(cfg, origin),
        "images": number,
        "seconds": round(seconds, 3),
        "images_per_second": round((predicted or number) / seconds, 3),
    }
    report(evaluator, counts, class_names, protocol, logger)


def build_tester(cfg: Config, process: Process) -> Evaluator:
    """The images, the network that predicts them (unless they are predicted) and the folder."""
    samples, names = list_samples(cfg)
    checkpoint, predictor = "", None
    if not (cfg.has_prediction and cfg.save_folder):
        checkpoint = find_checkpoint(cfg.model_path, cfg.save_path)
    colors = load_colors(cfg.colors_path, cfg.classes)
    export = load_export(cfg.export, classes=cfg.classes)
    if not cfg.has_prediction:
        network, device = load_trained(cfg, checkpoint), process.device
        amp = usable_amp(cfg.test_amp, device)
        predictor = build_predictor(cfg, network, device=device, amp=amp)
    protocol = prediction_protocol(cfg, checkpoint, predictor)
    return Evaluator(
        samples,
        names,
        results=ResultFolder(result_folder(cfg, checkpoint), protocol, colors, export),
        predict=predictor and predictor.predict,
        skip_existing=cfg.skip_existing,
        label_map=label_map_of(cfg),
    )


def list_samples(cfg: Config) -> tuple[list[Sample], list[str]]:
    """The images to test, TEST.index_start and index_step applied, and their result names."""
    list_path = cfg.test_list or cfg.val_list
    if not list_path:
        raise ConfigError("TEST.test_list is empty: set it in the config or as an override")
    samples = read_list(list_path, cfg.data_root, has_labels=cfg.split != "test")
    names = result_names(samples)  # of the whole list, so that a part gets the same names
    if cfg.export:
        check_names(cfg.export, names)
    if cfg.index_start >= len(samples):
        raise ConfigError(
            f"TEST.index_start {cfg.index_start} is past the end of {list_path}, which holds "
            f"{len(samples)} images"
        )
    end = cfg.index_start + cfg.index_step if cfg.index_step else len(samples)
    return samples[cfg.index_start : end], names[cfg.index_start : end]


def open_folder(cfg: Config, process: Process, results: ResultFolder) -> dict[str, Any]:
    """Have the first process make the result folder ready; what its environment.json holds."""
    origin = {}
    if process.is_main:
        if not cfg.has_prediction:
            results.claim(skip_existing=cfg.skip_existing)
        results.path.mkdir(parents=True, exist_ok=True)
        (results.path / "config.yaml").write_text(dump_config(cfg), encoding="utf-8")
        origin = write_origin(results.path, root=ROOT, device=describe(process.device))
    process.any_rank(
        False
    )  # the others wait here: they must not write before the folder is claimed
    return origin


def run(
    cfg: Config, process: Process, evaluator: Evaluator, logger: RunLogger
) -> tuple[ImageCounts, int]:
    """Work with the other processes; what all of them counted, and how many they predicted."""
    number = len(evaluator.samples)
    with StopRequest() as stop:
        evaluator.run(
            takewhile(lambda _: not stop.name, process.shared_indices(number, name="test")),
            logger,
            print_freq=cfg.print_freq,
            share=-(-number // process.world_size),
        )
    is_asked_to_stop = process.any_rank(bool(stop.name))
    parts = process.all_gather_object((evaluator.counts, evaluator.done, evaluator.predicted))
    counts = ImageCounts(cfg.classes, cfg.ignore_label)
    for part, _, _ in parts:
        counts.merge(part)
    done, predicted = (sum(part[i] for part in parts) for i in (1, 2))
    if done < number and is_asked_to_stop:
        logger.info(
            f"stopped by a signal, {done} of {number} images are done; the same command with "
            "TEST.skip_existing True goes on"
        )
        sys.exit(EXIT_STOPPED)
    assert done == number, f"{done} of {number} images were tested"
    return counts, predicted


def report(
    evaluator: Evaluator,
    counts: ImageCounts,
    class_names: list[str],
    protocol: dict[str, Any],
    logger: RunLogger,
) -> None:
    """The scores on the console, in scores.json, confusion.npz and report.html."""
    folder, matrix, areas = logger.folder, counts.total.matrix.numpy(), Areas.stack(counts.areas)
    scores, ends = counts.total.scores(), intervals(areas, draw_counts(len(evaluator.names)))
    for line in table_lines(scores, ends, class_names):
        logger.info(line)
    logger.info(f"Eval result: {headline(scores)}")
    content = scores_content(scores, ends, class_names, protocol)
    (folder / "scores.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    np.savez_compressed(
        folder / "confusion.npz", matrix=matrix, images=evaluator.names, **vars(areas)
    )

    colors = evaluator.results.colors
    results = Results(
        content, matrix, areas, counts.image_of, evaluator.names, colors, evaluator.load
    )
    write_report(folder / "report.html", results, title=str(folder))
    logger.info(f"results are in {folder}, report.html shows them")


if __name__ == "__main__":
    run_cli(main)
