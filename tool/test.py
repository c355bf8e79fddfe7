"""Test a trained network as a config says: predictions as pictures, scores.json, report.html.

confusion.npz holds the counts behind the scores; tool/compare.py compares two such folders.
"""

import json
import sys
import time
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from model import load_trained
from util.bootstrap import Areas, draw_counts, intervals
from util.checkpoint import find_checkpoint
from util.config import ROOT, Config, check_test, config_parser, dump_config, load_config
from util.error import EXIT_STOPPED, ConfigError, run_cli
from util.inference import build_predictor
from util.label_map import load_export, load_label_map
from util.logger import RunLogger, headline, write_origin
from util.metric import PictureCounts
from util.palette import load_colors, load_names
from util.precision import usable_amp
from util.report import Results, write_report
from util.results import ResultFolder, check_names, scores_content, table_lines
from util.runtime import Runtime, StopRequest, describe, launch
from util.samples import Sample, read_list, result_names
from util.tester import Tester
from util.tester.protocol import prediction_protocol, result_folder, scoring_protocol


def main() -> None:
    args = config_parser(__doc__).parse_args()
    cfg = load_config(args.config, args.overrides)
    check_test(cfg)
    launch(test, cfg, gpus=cfg.test_gpu)


def test(runtime: Runtime, cfg: Config) -> None:
    """The whole test, in one of its processes."""
    class_names = load_names(cfg.names_path, cfg.classes)
    tester = build_tester(cfg, runtime)
    results, number = tester.results, len(tester.samples)
    origin = open_folder(cfg, runtime, results)
    logger = RunLogger(results.path, name="test", active=runtime.is_main)
    logger.info(
        f"{number} pictures, scales {cfg.scales}, crop {cfg.test_h}x{cfg.test_w}, predictions "
        + (f"of {results.path}" if cfg.has_prediction else f"by {results.protocol['checkpoint']}")
        + f", {describe(runtime.device)}, processes: {runtime.world_size}"
    )
    start = time.perf_counter()
    counts, predicted = run(cfg, runtime, tester, logger)
    seconds = time.perf_counter() - start
    if not runtime.is_main:
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
        "pictures": number,
        "seconds": round(seconds, 3),
        "pictures_per_second": round((predicted or number) / seconds, 3),
    }
    report(tester, counts, class_names, protocol, logger)


def build_tester(cfg: Config, runtime: Runtime) -> Tester:
    """The pictures, the network that predicts them (unless they are predicted) and the folder."""
    samples, names = list_samples(cfg)
    checkpoint, predictor = "", None
    if not (cfg.has_prediction and cfg.save_folder):
        checkpoint = find_checkpoint(cfg.model_path, cfg.save_path)
    colors = load_colors(cfg.colors_path, cfg.classes)
    export = load_export(cfg.export, classes=cfg.classes)
    if not cfg.has_prediction:
        network, device = load_trained(cfg, checkpoint), runtime.device
        amp = usable_amp(cfg.test_amp, device, say=runtime.say)
        predictor = build_predictor(cfg, network, device=device, amp=amp)
    protocol = prediction_protocol(cfg, checkpoint, predictor)
    return Tester(
        samples,
        names,
        results=ResultFolder(result_folder(cfg, checkpoint), protocol, colors, export),
        predict=predictor and predictor.predict,
        skip_existing=cfg.skip_existing,
        label_map=load_label_map(
            cfg.label_map,
            ignore_ids=cfg.ignore_ids,
            classes=cfg.classes,
            ignore_label=cfg.ignore_label,
        ),
        classes=cfg.classes,
    )


def list_samples(cfg: Config) -> tuple[list[Sample], list[str]]:
    """The pictures to test, TEST.index_start and index_step applied, and their result names."""
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
            f"{len(samples)} pictures"
        )
    end = cfg.index_start + cfg.index_step if cfg.index_step else len(samples)
    return samples[cfg.index_start : end], names[cfg.index_start : end]


def open_folder(cfg: Config, runtime: Runtime, results: ResultFolder) -> dict[str, Any]:
    """Have the first process make the result folder ready; what its environment.json holds."""
    origin = {}
    if runtime.is_main:
        if not cfg.has_prediction:
            results.claim(skip_existing=cfg.skip_existing)
        results.path.mkdir(parents=True, exist_ok=True)
        (results.path / "config.yaml").write_text(dump_config(cfg), encoding="utf-8")
        origin = write_origin(results.path, root=ROOT, device=describe(runtime.device))
    runtime.any(False)  # the others wait here: they must not write before the folder is claimed
    return origin


def run(
    cfg: Config, runtime: Runtime, tester: Tester, logger: RunLogger
) -> tuple[PictureCounts, int]:
    """Work with the other processes; what all of them counted, and how many they predicted."""
    number = len(tester.samples)
    with StopRequest() as stop:
        tester.run(
            takewhile(lambda _: not stop.name, runtime.turns(number, name="test")),
            logger,
            print_freq=cfg.print_freq,
            share=-(-number // runtime.world_size),
        )
    is_asked_to_stop = runtime.any(bool(stop.name))
    parts = runtime.gather_objects((tester.counts, tester.done, tester.predicted))
    counts = PictureCounts(cfg.classes, cfg.ignore_label)
    for part, _, _ in parts:
        counts.merge(part)
    done, predicted = (sum(part[i] for part in parts) for i in (1, 2))
    if done < number and is_asked_to_stop:
        logger.info(
            f"stopped by a signal, {done} of {number} pictures are done; the same command with "
            "TEST.skip_existing True goes on"
        )
        sys.exit(EXIT_STOPPED)
    assert done == number, f"{done} of {number} pictures were tested"
    return counts, predicted


def report(
    tester: Tester,
    counts: PictureCounts,
    class_names: list[str],
    protocol: dict[str, Any],
    logger: RunLogger,
) -> None:
    """The scores on the console, in scores.json, confusion.npz and report.html."""
    folder, matrix, areas = logger.folder, counts.total.matrix.numpy(), Areas.stack(counts.areas)
    scores, ends = counts.total.scores(), intervals(areas, draw_counts(len(tester.names)))
    for line in table_lines(scores, ends, class_names):
        logger.info(line)
    logger.info(f"Eval result: {headline(scores)}")
    content = scores_content(scores, ends, class_names, protocol)
    (folder / "scores.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    np.savez_compressed(
        folder / "confusion.npz", matrix=matrix, pictures=tester.names, **vars(areas)
    )

    colors = tester.results.colors
    results = Results(content, matrix, areas, counts.picture_of, tester.names, colors, tester.load)
    write_report(folder / "report.html", results, title=str(folder))
    logger.info(f"results are in {folder}, report.html shows them")


if __name__ == "__main__":
    run_cli(main)
