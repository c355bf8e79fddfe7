"""Test a trained network: write predictions, scores.json, confusion.npz and report.html.

tool/compare.py compares two result folders.
"""

import logging
import sys
import time
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from util.error import EXIT_STOPPED, CheckpointError, run_cli  # isort: split

from model import check_network, load_trained
from util.config import ROOT, Config, check_test, config_parser, dump_config, load_config
from util.data.file import write_text
from util.data.label_map import label_map_of, load_export
from util.data.load import readable_facts
from util.distributed import Process, StopRequest, describe, launch
from util.distributed.device import usable_amp
from util.evaluation.evaluator import Evaluator
from util.evaluation.protocol import (
    UNKNOWN_PROTOCOL,
    load_checkpoint,
    prediction_protocol,
    result_path,
    scoring_protocol,
    tested_images,
    tested_list,
)
from util.evaluation.result import make_result, scored_images
from util.evaluation.result_folder import ResultFolder, read_protocol
from util.extra.report.page import write_report
from util.inference import SlidingPredictor, build_predictor
from util.logger import RunLogger, headline, start_logging, write_origin
from util.metric import ImageCounts
from util.palette import load_colors, load_names
from util.training.checkpoint import find_checkpoint

log = logging.getLogger("semseg")


def main() -> None:
    args = config_parser(__doc__).parse_args()
    cfg = load_config(args.config, args.overrides)
    check_test(cfg)
    check_network(cfg, is_test=True)
    start_logging()
    launch(test, cfg, gpus=cfg.test_gpu)


def test(process: Process, cfg: Config) -> None:
    """Run the test in one process."""
    start_logging(is_main=process.is_main)
    class_names = load_names(cfg.names_path, cfg.classes)
    evaluator = build_evaluator(cfg, process)
    origin = open_folder(cfg, process, evaluator)
    with RunLogger(evaluator.results.path, name="test", active=process.is_main):
        describe_test(cfg, process, evaluator)
        start = time.perf_counter()
        counts, predicted = run(cfg, process, evaluator)
        seconds = time.perf_counter() - start
        if process.is_main:
            number = len(evaluator.samples)
            protocol = {
                **evaluator.results.protocol,
                **scoring_protocol(cfg, origin),
                "images": number,
                "seconds": round(seconds, 3),
                "images_per_second": round((predicted or number) / seconds, 3),
            }
            report(cfg, evaluator, counts, class_names, protocol, predicted)


def build_evaluator(cfg: Config, process: Process) -> Evaluator:
    """Build the evaluator; the network is loaded only if images must be predicted."""
    samples, names = tested_images(cfg)
    if cfg.has_prediction:
        needs_checkpoint = not cfg.save_folder  # only to derive the result folder
        checkpoint = find_checkpoint(cfg.model_path, cfg.save_path) if needs_checkpoint else ""
        path, predict = result_path(cfg, checkpoint), None
        protocol = read_protocol(path) or UNKNOWN_PROTOCOL
    else:
        checkpoint, digest, predictor = build_trained(cfg, process)
        path, predict = result_path(cfg, checkpoint), predictor.predict
        protocol = prediction_protocol(cfg, checkpoint, digest, predictor)
    label_map = label_map_of(cfg)
    results = ResultFolder(
        path,
        protocol,
        load_colors(cfg.colors_path, cfg.classes),
        load_export(cfg.export, classes=cfg.classes),
        label_map.colors,
    )
    return Evaluator(
        samples,
        names,
        results=results,
        predict=predict,
        skip_existing=cfg.skip_existing,
        label_map=label_map,
        beside=readable_facts(cfg.train_list, cfg.data_root, label_map),
    )


def build_trained(cfg: Config, process: Process) -> tuple[str, str, SlidingPredictor]:
    """Return the checkpoint's path, its SHA-256 and a predictor, the same in all processes."""
    checkpoint, digest, network = load_checkpoint(
        lambda: find_checkpoint(cfg.model_path, cfg.save_path),
        lambda path: load_trained(cfg, path),
    )
    if process.broadcast((checkpoint, digest)) != (checkpoint, digest):
        raise CheckpointError(f"{checkpoint} changed while it was read: start the test again")
    if cfg.skip_existing and not cfg.batch_windows:  # use the batch size of existing predictions
        before = read_protocol(result_path(cfg, checkpoint))
        cfg = replace(cfg, batch_windows=before.get("batch_windows"))
    amp = usable_amp(cfg.test_amp, process.device)
    predictor = build_predictor(cfg, network, device=process.device, amp=amp)
    predictor.batch_windows = process.broadcast(predictor.batch_windows)
    return checkpoint, digest, predictor


def open_folder(cfg: Config, process: Process, evaluator: Evaluator) -> dict[str, Any]:
    """Prepare the result folder in the main process; return the content of environment.json."""
    origin, results = {}, evaluator.results
    if process.is_main:
        if cfg.has_prediction:  # keep the record of how the predictions were made
            results.open_existing(evaluator.names)
        else:
            inputs = (path for s in evaluator.samples for path in (s.image, s.label) if path)
            results.open(evaluator.names, inputs)
            write_text(results.path / "config.yaml", dump_config(cfg))
        origin = write_origin(
            results.path,
            root=ROOT,
            device=describe(process.device),
            overwrite=not cfg.has_prediction,
        )
    process.barrier()  # nobody writes before the folder is ready
    return origin


def describe_test(cfg: Config, process: Process, evaluator: Evaluator) -> None:
    """Log the images, device, checkpoint and protocol."""
    protocol, place = evaluator.results.protocol, evaluator.results.path
    log.info(
        f"{len(evaluator.samples)} images of {tested_list(cfg)}, {describe(process.device)}, "
        f"processes: {process.world_size}, results: {place}"
    )
    if not cfg.has_prediction:
        log.info(
            f"{protocol['checkpoint']}: scales {cfg.scales} of {cfg.base_size}, {cfg.test_mode}, "
            f"crop {cfg.test_h}x{cfg.test_w}, {protocol['precision']}, "
            f"{protocol['batch_windows']} windows per forward pass"
        )


def run(cfg: Config, process: Process, evaluator: Evaluator) -> tuple[ImageCounts, int]:
    """Run this process's share; return the counts and number of predictions of all processes."""
    number = len(evaluator.samples)
    with StopRequest() as stop:
        evaluator.run(
            takewhile(lambda _: not stop.name, process.shared_indices(number, name="test")),
            print_freq=cfg.print_freq,
            share=-(-number // process.world_size),
            is_main=process.is_main,
        )
    is_asked_to_stop = process.any_rank(bool(stop.name))
    parts = process.all_gather_object((evaluator.counts, evaluator.done, evaluator.predicted))
    counts = ImageCounts(cfg.classes, cfg.ignore_label)
    for part, _, _ in parts:
        counts.merge(part)
    done, predicted = (sum(part[i] for part in parts) for i in (1, 2))
    if is_asked_to_stop:
        log.info(
            f"stopped by a signal after {done} of {number} images; the same command with "
            "TEST.skip_existing True continues"
        )
        sys.exit(EXIT_STOPPED)
    assert done == number, f"{done} of {number} images were tested"
    return counts, predicted


def report(
    cfg: Config,
    evaluator: Evaluator,
    counts: ImageCounts,
    class_names: list[str],
    protocol: dict[str, Any],
    predicted: int,
) -> None:
    """Print the scores and write scores.json, confusion.npz and report.html."""
    results, number = evaluator.results, len(evaluator.samples)
    if cfg.skip_existing:
        log.info(f"{number - predicted} predictions reused, {predicted} new")
    if cfg.export:
        log.info(f"submission files, to be packed for the server: {results.submission}")
    if cfg.split == "test":
        log.info(f"predictions without labels are in {results.path}")
        return
    before = scored_images(results.path)
    if before > {*evaluator.names}:
        log.warning(
            f"the scores of {len(before)} images in {results.path} are replaced by those of "
            f"{number} of them; their predictions stay: TEST.has_prediction True scores them again"
        )
    result = make_result(counts, names=class_names, images=evaluator.names, protocol=protocol)
    for line in (*result.table(), f"Eval result: {headline(counts.total.scores())}"):
        log.info(line)
    write_report(
        results.path / "report.html",
        result,
        image_of=counts.image_of,
        colors=results.colors,
        load=evaluator.load,
        title=str(results.path),
    )
    result.save(results.path)
    log.info(f"results are in {results.path}; see report.html there")


if __name__ == "__main__":
    run_cli(main)
