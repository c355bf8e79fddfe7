"""Plot training curves of one or more runs: loss, mIoU and learning rate by epoch.

Reads metrics.jsonl, which tool/train.py writes next to its checkpoints. Needs matplotlib
(pip install matplotlib).
"""

import argparse
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from util.error import ConfigError, DataError, run_cli, show  # isort: split

from util.data.file import replacing
from util.evaluation.output import check_file

PANELS = {  # title -> line style -> keys of the value in a record
    "loss": {"-": ("train_loss",), "--": ("val_loss",)},
    "mIoU": {"-": ("train_miou",), "--": ("val", "miou")},
    "learning rate": {"-": ("lr",)},
}
NAMES = {"-": "training", "--": "validation"}
Record = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", nargs="+", type=Path, help="folder of a run, or its metrics.jsonl")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("curves.png"),
        help="PNG, SVG or PDF; default %(default)s",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a file that exists")
    args = parser.parse_args()
    if args.output.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise DataError(f"--output must end in .png, .svg or .pdf, got {args.output}")
    check_file(
        args.output,
        key="--output",
        is_ours=(lambda path: True) if args.overwrite else None,
        fix="choose another name, or give --overwrite",
    )
    plot([read_metrics(run) for run in args.run], labels(args.run), args.output)
    print(f"wrote {args.output}")


def read_metrics(run: Path) -> list[Record]:
    """Read one record per epoch; a truncated last line (killed run) is ignored."""
    places = (run, run / "metrics.jsonl", run / "model/metrics.jsonl")
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        raise DataError(f"{run} has no metrics.jsonl: give the folder of a run, such as exp/a/b")
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    records = [_record(line) for line in lines]
    if records and records[-1] is None:
        records.pop()
    if None in records:
        number = records.index(None) + 1
        line = show(lines[number - 1])
        raise DataError(f"{path}: line {number} is not the record of an epoch ({line})")
    if not records:
        raise DataError(f"{path} is empty: plot it after the first epoch")
    return [record for record in records if record]


def _record(line: str) -> Record | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    is_record = isinstance(record, dict) and isinstance(record.get("epoch"), int)
    return record if is_record else None


def value(record: Record, keys: tuple[str, ...]) -> float | None:
    """Return the number at record[key][key]..., None if it is missing."""
    found: Any = record
    for key in keys:
        found = found.get(key) if isinstance(found, dict) else None
    return found if type(found) in (int, float) else None


def labels(runs: list[Path]) -> list[str]:
    """Label runs by the shortest path suffixes that are unique."""
    for length in range(1, max(len(run.resolve().parts) for run in runs) + 1):
        names = ["/".join(run.resolve().parts[-length:]) for run in runs]
        if max(Counter(names).values()) == 1:
            return names
    return names


def plot(runs: list[list[Record]], names: list[str], output: Path) -> None:
    """Draw all runs, one panel per entry of PANELS, and write the figure to `output`."""
    try:
        import matplotlib
    except ImportError:
        raise ConfigError("plot_log.py needs matplotlib: pip install matplotlib") from None

    matplotlib.use("agg")
    from matplotlib import pyplot
    from matplotlib.ticker import MaxNLocator

    figure, axes = pyplot.subplots(1, len(PANELS), figsize=(13, 3.8), layout="constrained")
    for panel, (title, curves) in zip(axes, PANELS.items(), strict=True):
        for number, (records, name) in enumerate(zip(runs, names, strict=True)):
            for style, keys in curves.items():
                points = [(r["epoch"], v) for r in records if (v := value(r, keys)) is not None]
                if points:
                    label = f"{name}, {NAMES[style]}" if len(curves) > 1 else name
                    marker = "o" if len(points) == 1 else None
                    panel.plot(
                        *zip(*points, strict=True),
                        style,
                        color=f"C{number}",
                        label=label,
                        marker=marker,
                    )
        panel.set(title=title, xlabel="epoch", ylim=(0, 1) if title == "mIoU" else (0, None))
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.grid(alpha=0.3)
        if panel.lines:
            panel.legend(fontsize="small")
    with replacing(output) as path:
        figure.savefig(path, dpi=150, format=output.suffix[1:].lower())
    pyplot.close(figure)


if __name__ == "__main__":
    run_cli(main)
