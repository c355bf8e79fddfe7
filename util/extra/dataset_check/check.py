"""Checks a whole dataset: every problem, the files affected, and the fix."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np

from util.data.label_map import LabelMap
from util.error import ConfigError
from util.extra.dataset_check.counts import (
    ClassCounts,
    count_classes,
    mapped_histogram,
    median_weights,
    read_weights,
)
from util.extra.dataset_check.files import (
    damaged_files,
    leaks,
    missing_files,
    name_collisions,
    read_entries,
    repeated_lines,
    shared_labels,
    with_facts,
)
from util.extra.dataset_check.labels import Labelling, label_findings
from util.extra.dataset_check.pairs import in_processes, inspect_pair
from util.extra.dataset_check.report import Finding, Report, plural
from util.palette import load_colors, load_names

__all__ = ["ClassCounts", "Finding", "Report", "examine", "median_weights", "read_weights"]


def examine(
    lists: Mapping[str, str],
    data_root: str,
    *,
    label_map: LabelMap,
    map_source: str = "",
    names_path: str = "",
    colors_path: str = "",
) -> Report:
    """Read all pairs of the lists (split -> file) and judge them. Raises DataError without a list.

    `map_source` is the file of DATA.label_map where it is one.
    """
    findings, entries, classes = [], [], label_map.classes
    for split, list_path in lists.items():
        found, broken = read_entries(split, list_path, data_root)
        findings += missing_files(list_path, data_root, broken, are_all=not found)
        entries += found
    samples = [entry.sample for entry in entries]
    read = partial(inspect_pair, as_colors=label_map.is_of_colors)
    entries = with_facts(entries, in_processes(read, samples))

    attribute_findings, colors = check_attributes(names_path, colors_path, classes)
    labelling = Labelling(classes, label_map, map_source, colors, colors_path)
    of_labels = label_findings(entries, labelling)
    collisions, notes = name_collisions(entries)
    findings += [
        *damaged_files(entries),
        *of_labels,
        *repeated_lines(entries),
        *shared_labels(entries),
        *leaks(entries),
        *collisions,
        *attribute_findings,
    ]
    counts = {}
    for split in lists:
        raw = [e.facts.ids for e in entries if e.split == split and not e.facts.is_color_image]
        histograms = (mapped_histogram(ids, label_map) for ids in raw)
        counts[split] = count_classes(histograms, classes=classes)
    if not any(finding.kind != "all-void" for finding in of_labels):
        names = load_names("" if attribute_findings else names_path, classes)
        for split, count in counts.items():
            absent = absent_classes(count, split, names)
            (findings if split == "train" else notes).extend(absent)
    pairs = {split: sum(e.split == split for e in entries) for split in lists}
    return Report(findings, notes, counts, pairs)


def check_attributes(
    names_path: str, colors_path: str, classes: int
) -> tuple[list[Finding], np.ndarray | None]:
    """Findings about the files of names and colours, and the colours (classes, 3) if they fit."""
    findings, colors = [], None
    for kind, path, load in (
        ("names", names_path, load_names),
        ("colours", colors_path, load_colors),
    ):
        try:
            loaded = load(path, classes)
            if kind == "colours" and path:
                colors = loaded
        except ConfigError as error:
            found = Path(path)
            lines = len(found.read_bytes().rstrip().splitlines()) if found.is_file() else 0
            cure = f"give {path} {classes} lines"
            if lines > 1 and lines != classes:
                cure = f"DATA.classes: {lines}, or {cure}"
            findings.append(Finding(kind, str(error), [path], cure))
    return findings, colors


def absent_classes(count: ClassCounts, split: str, names: list[str]) -> list[Finding]:
    """Classes without a pixel in a split."""
    absent = [f"{i} {names[i]}" for i in range(len(names)) if not count.pixels[i]]
    if not absent or len(absent) == len(names):
        return []
    kept = len(names) - len(absent)
    is_tail = all(count.pixels[:kept])
    cure = (
        f"DATA.classes: {kept}"
        if is_tail and kept > 1
        else "check the order of ids and DATA.label_map; a network cannot learn these classes"
    )
    if split != "train":
        cure = "nothing, but their IoU counts 0 in the mean"
    what = f"{plural(len(absent), 'class')} without a pixel in {split}"
    return [Finding("absent-class", what, absent, cure)]
