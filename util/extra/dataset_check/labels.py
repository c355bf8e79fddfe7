"""Findings about what labels hold: coded otherwise than the rest, wrong ids, colours, only void."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from util.config import Config
from util.data.cause import Cause, probable_cause, union
from util.data.coding import contradictions, voids
from util.data.label_map import LabelMap, color_text
from util.extra.dataset_check.report import Entry, Finding, blank_lines, plural

MANY_COLORS = 256  # more than any set of classes: an image saved with loss, or smoothed
IDS_SHOWN = 6
CODING = {  # what contradictions are called
    "mixed-bits": "stored in fewer bits than others",
    "palettes": "with a palette that contradicts others",
    "palette-colours": "with a palette that contradicts the class colours",
    "mask-0-255": "with 255 for a class",
    "mask-among-ids": "of 0 and 255 among others of ids",
    "half-void": "of which one half is void",
}


def label_findings(entries: Sequence[Entry], label_map: LabelMap, cfg: Config) -> list[Finding]:
    """All that is wrong with what the labels hold."""
    ids = [e for e in entries if e.facts.ids and not e.facts.is_color_image]
    found = [
        *other_coding(ids, label_map, cfg),
        *color_images([e for e in entries if e.facts.is_color_image], label_map, cfg),
    ]
    if not any(finding.kind == "mask-0-255" for finding in found):
        found += wrong_ids(ids, label_map, cfg)
        found += void_labels(ids, label_map)
    return found


def other_coding(entries: Sequence[Entry], label_map: LabelMap, cfg: Config) -> Iterable[Finding]:
    """Labels that contradict each other, or of which one half is void."""
    facts = [e.facts.label for e in entries]
    half = (fault for fault in voids(facts, label_map) if fault.kind == "half-void")
    for fault in (*contradictions(facts, label_map), *half):
        first, *more = fault.paths
        cure = fault.fix.replace("the file of TEST.colors_path", str(cfg.colors_path))
        if not cure.startswith("DATA."):
            lines = blank_lines(e for e in entries if e.sample.label in set(fault.paths))
            cure = f"{cure}; or leave {'them' if more else 'it'} out: {lines}"
        what = f"{plural(1 + len(more), 'label')} {CODING[fault.kind]}"
        yield Finding(fault.kind, what, [f"{first} {fault.what}", *map(str, more)], cure)


def wrong_ids(entries: Sequence[Entry], label_map: LabelMap, cfg: Config) -> Iterable[Finding]:
    """Ids outside 0..classes-1: one finding where one cause explains all, else one for each cause
    of single labels."""
    wrong = [e for e in entries if _wrong(e.facts.ids, label_map)]
    if not wrong:
        return
    groups = {"": wrong}
    whole = _cause(union(e.facts.ids for e in entries), label_map, cfg)
    if whole.kind == "other-ids":
        groups = defaultdict(list)
        for entry in wrong:
            groups[_cause(entry.facts.ids, label_map, cfg).kind].append(entry)
    for group in groups.values():
        found = union(e.facts.ids for e in group)
        cause = whole if group is wrong else _cause(found, label_map, cfg)
        ids = _wrong(found, label_map)
        names = {i: color_text(i) if label_map.is_of_colors else str(i) for i in ids}
        files = []
        for entry in group:
            some = [(names[i], n) for i, n in entry.facts.ids.items() if i in names][:3]
            pixels = ", ".join(f"{name} ({n} pixels)" for name, n in some)
            files.append(f"{entry.sample.label}: {pixels}")
        shown = ", ".join([*names.values()][:IDS_SHOWN]) + (", ..." if len(ids) > IDS_SHOWN else "")
        total = sum(found[i] for i in ids)
        what = f"{plural(len(group), 'label')} with {shown} ({total} pixels): {cause.looks_like}"
        yield Finding(cause.kind, what, files, cause.fix)


def _wrong(raw: Iterable[int], label_map: LabelMap) -> list[int]:
    """The raw ids that are neither a class nor ignored, sorted."""
    raw = np.array(sorted(raw), np.int64)
    ids = label_map.lookup(raw)
    return raw[((ids < 0) | (ids >= label_map.classes)) & (ids != label_map.ignore_label)].tolist()


def _cause(found: dict[int, int], label_map: LabelMap, cfg: Config) -> Cause:
    """Why these raw ids, all of some labels, do not fit; some of them are wrong."""
    wrong, ignored = _wrong(found, label_map), label_map.ignore_label
    ignore_ids = f"DATA.ignore_ids: {sorted({*label_map.ignore_ids, *wrong})}"
    if label_map.is_of_colors:
        lines = " ".join(f"'{color_text(i)} {ignored}'" for i in wrong)
        cure = f"printf '%s\\n' {lines} >> {cfg.label_map}"
        return Cause("unnamed-colours", "are not named in DATA.label_map", cure)
    if label_map.table:
        return Cause("unnamed-ids", "are not named in DATA.label_map", ignore_ids)
    classes, colors = label_map.classes, label_map.colors
    cause = probable_cause(found, classes=classes, ignore_label=ignored, colors=colors)
    assert cause is not None
    if cause.kind == "void-id" and label_map.ignore_ids:
        return Cause(cause.kind, cause.looks_like, ignore_ids)
    return cause


def color_images(entries: Sequence[Entry], label_map: LabelMap, cfg: Config) -> Iterable[Finding]:
    """Labels that are RGB images where ids are expected."""
    if not entries:
        return
    files = [str(e.sample.label) for e in entries]
    what = f"{plural(len(files), 'label')} saved in colours instead of ids"
    colors = sorted({i for e in entries for i in e.facts.ids})
    unknown = [color_text(i) for i in colors if i not in label_map.colors]
    if len(colors) > MANY_COLORS:
        what += f", {len(colors)} of them: saved with loss (JPEG) or smoothed edges"
        cure = "save them again as PNG, without smoothing"
    elif not unknown:
        cure = f"DATA.label_map: {cfg.colors_path}"
    elif len(unknown) < len(colors):
        lines = " ".join(f"'{c} {label_map.ignore_label}'" for c in unknown)
        cure = (
            f"DATA.label_map: label_map.txt, after (cat {cfg.colors_path}; printf '%s\\n' {lines}) "
            "> label_map.txt, which ignores the colours without a class"
        )
    else:
        cure = (
            "DATA.label_map: a file with a line `R G B id` for each colour: "
            f"{', '.join(unknown[:20])}{', ...' if len(unknown) > 20 else ''}"
        )
    yield Finding("colour-label", what, files, cure)


def void_labels(entries: Sequence[Entry], label_map: LabelMap) -> Iterable[Finding]:
    """Labels without a single labelled pixel."""

    def is_void(entry: Entry) -> bool:
        ids = label_map.lookup(np.array(list(entry.facts.ids), np.int64))
        return bool((ids == label_map.ignore_label).all())

    void = [e for e in entries if is_void(e)]
    if void:
        files = [str(e.sample.label) for e in void]
        what = f"{plural(len(void), 'label')} of void alone"
        yield Finding("all-void", what, files, blank_lines(void))
