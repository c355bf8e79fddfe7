"""Check a dataset before training: report each problem, the affected files and the fix.

Also counts classes. Exit code 0: no problem found, 1: problems found, 2: could not run.
"""

import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from util.error import ConfigError, DataError, read_json, run_cli, show  # isort: split

from util.config import Config, check_labels, config_parser, load_config
from util.data.file import write_text
from util.evaluation.output import check_file
from util.extra.dataset_check.check import Report, examine
from util.extra.dataset_check.report import Finding
from util.palette import load_names

EXIT_FINDINGS = 1
EXAMPLES = 3  # files shown per finding; --json lists all


def main() -> None:
    parser = config_parser(__doc__)
    parser.add_argument("--split", choices=("train", "val", "all"), default="all")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all findings as JSON")
    args = parser.parse_args()
    cfg = load_config(args.config, args.overrides)
    check_labels(cfg)
    if args.json:
        check_file(args.json, key="--json", is_ours=is_report)
    start = time.perf_counter()
    report = examine(cfg, chosen_lists(cfg, args.split))
    seconds = time.perf_counter() - start
    has_names = not any(finding.kind == "names" for finding in report.findings)
    names = load_names(cfg.names_path if has_names else "", cfg.classes)
    if args.json:
        write_text(args.json, json.dumps(content(report, names), indent=2) + "\n")
    print_classes(report, names)
    for finding in report.notes:
        print_finding("note", finding)
    for finding in report.findings:
        print_finding("FOUND", finding)
    pairs = ", ".join(f"{count} {split}" for split, count in report.pairs.items())
    speed = sum(report.pairs.values()) / seconds
    verdict = f"findings: {len(report.findings)}" if report.findings else "clean"
    print(f"{pairs} pairs read in {seconds:.1f} s ({speed:.0f}/s): {verdict}")
    sys.exit(EXIT_FINDINGS if report.findings else 0)


def chosen_lists(cfg: Config, split: str) -> dict[str, str]:
    """Map splits to list files; `all` skips the validation list if it is not set."""
    lists = {"train": cfg.train_list, "val": cfg.val_list}
    splits = [split] if split != "all" else ["train", "val"] if cfg.val_list else ["train"]
    for name in splits:
        if not lists[name]:
            raise ConfigError(f"DATA.{name}_list is empty: set it in the config or as an override")
    return {name: lists[name] for name in splits}


def print_classes(report: Report, names: list[str]) -> None:
    """Print per class the share of pixels and the images by split, and a suggested weight."""
    names = [show(name, limit=60) for name in names]
    width = max(len(name) for name in names)
    heads = "".join(f"  {split + ' pixels':>12} {'images':>8}" for split in report.counts)
    print(f"{'id':>4} {'class':<{width}}{heads}  weight")
    for i, (name, weight) in enumerate(zip(names, report.class_weights, strict=True)):
        cells = ""
        for counts in report.counts.values():
            share = counts.pixels[i] / max(1, counts.pixels.sum())
            cells += f"  {share:>12.3%} {counts.images[i]:>8}"
        print(f"{i:>4} {name:<{width}}{cells}  {weight:g}")
    print("weight: median frequency, as used by TRAIN.class_weights median\n")


def print_finding(head: str, finding: Finding) -> None:
    """Print the problem, some of the files and the fix."""
    print(f"{head} [{finding.kind}] {show(finding.what, limit=1000)}")
    for name in finding.files[:EXAMPLES]:
        print(f"    {show(name, limit=1000)}")
    if len(finding.files) > EXAMPLES:
        print(f"    ... and {len(finding.files) - EXAMPLES} more (--json FILE lists all)")
    print(f"  cure: {finding.cure}\n")


def is_report(path: Path) -> bool:
    """Whether this tool wrote the file."""
    try:
        found = read_json(path, DataError)
    except (DataError, OSError):
        return False
    return isinstance(found, dict) and {"pairs", "findings", "class_weights"} <= found.keys()


def content(report: Report, names: list[str]) -> dict[str, Any]:
    """Return the content of the JSON file; TRAIN.class_weights reads `class_weights`."""
    return {
        "pairs": report.pairs,
        "findings": [asdict(finding) for finding in report.findings],
        "notes": [asdict(finding) for finding in report.notes],
        "names": names,
        "pixels": {split: counts.pixels.tolist() for split, counts in report.counts.items()},
        "images": {split: counts.images.tolist() for split, counts in report.counts.items()},
        "class_weights": report.class_weights,
    }


if __name__ == "__main__":
    run_cli(main)
