"""Checking a whole dataset: each problem, the affected files and the fix."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from util.config import Config
from util.data.label_map import label_map_of
from util.error import ConfigError
from util.extra.dataset_check.counts import ClassCounts, count_classes, mapped_histogram
from util.extra.dataset_check.entry import Entry, read_entries
from util.extra.dataset_check.files import damaged_files, repetitions, wrong_root
from util.extra.dataset_check.labels import label_findings
from util.extra.dataset_check.report import Finding, Report, plural
from util.palette import load_colors, load_names


def examine(cfg: Config, lists: Mapping[str, str]) -> Report:
    """Read and check all pairs in the lists (split -> list file).

    Raises DataError if a list is missing, ConfigError if DATA.label_map is invalid.
    """
    label_map = label_map_of(cfg)
    findings: list[Finding] = []
    entries: list[Entry] = []
    for split, path in lists.items():
        lines = read_entries(split, path, cfg.data_root, label_map)
        if any(entry.sample or entry.faults[0].kind != "missing" for entry in lines):
            entries += lines
        else:
            findings.append(wrong_root(lines, cfg.data_root))
    of_labels = label_findings(entries, label_map, cfg)
    of_attributes = list(attribute_findings(cfg))
    findings += [*damaged_files(entries), *of_labels, *repetitions(entries), *of_attributes]
    counts: dict[str, ClassCounts] = {}
    notes: list[Finding] = []
    names = load_names("" if of_attributes else cfg.names_path, cfg.classes)
    for split in lists:
        raw = [e.ids for e in entries if e.split == split and not e.is_color_image]
        histograms = (mapped_histogram(ids, label_map) for ids in raw)
        counts[split] = count_classes(histograms, classes=cfg.classes)
        if all(finding.kind == "all-void" for finding in of_labels):
            absent = absent_classes(counts[split], split, names)
            (findings if split == "train" else notes).extend(absent)
    pairs = {s: sum(e.split == s and e.sample is not None for e in entries) for s in lists}
    return Report(findings, notes, counts, pairs)


def attribute_findings(cfg: Config) -> Iterable[Finding]:
    """Yield findings about the files of class names and colours."""
    for kind, path, load in (
        ("names", cfg.names_path, load_names),
        ("colours", cfg.colors_path, load_colors),
    ):
        try:
            load(path, cfg.classes)
        except ConfigError as error:
            found = Path(path)
            text = found.read_bytes().rstrip() if found.is_file() else b""
            lines = sum(not line.startswith(b"#") for line in text.splitlines())
            cure = f"put {cfg.classes} lines into {path}"
            if lines > 1 and lines != cfg.classes:
                cure = f"DATA.classes: {lines}, or {cure}"
            elif lines == cfg.classes:
                cure = f"correct {path}, or leave TEST.{kind.replace('u', '')}_path empty"
            yield Finding(kind, str(error), [path], cure)


def absent_classes(count: ClassCounts, split: str, names: list[str]) -> Iterable[Finding]:
    """Yield a finding if some classes have no pixel in a split."""
    absent = [f"{i} {names[i]}" for i in range(len(names)) if not count.pixels[i]]
    if not absent or len(absent) == len(names):
        return
    kept = len(names) - len(absent)
    cure = "check the order of ids and DATA.label_map: the network cannot learn these classes"
    if split != "train":
        cure = "none needed, but their IoU counts as 0 in the mean"
    elif kept > 1 and all(count.pixels[:kept]):
        cure = f"DATA.classes: {kept}"
    what = f"{plural(len(absent), 'class')} without a pixel in {split}"
    yield Finding("absent-class", what, absent, cure)
