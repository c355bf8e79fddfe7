"""Findings about label contents: inconsistent encoding, invalid ids, colours, nothing but void."""

import shlex
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from util.config import Config
from util.data.coding import contradictions, voids
from util.data.label_map import LabelMap, color_text
from util.data.load import MANY_COLORS
from util.extra.dataset_check.entry import Entry, are_most, blank_lines
from util.extra.dataset_check.report import Finding, plural

IDS_SHOWN = 6


def label_findings(entries: Sequence[Entry], label_map: LabelMap, cfg: Config) -> list[Finding]:
    """Return all findings about label contents."""
    ids = [e for e in entries if e.ids and not e.is_color_image]
    found = [
        *other_coding(ids, label_map, cfg),
        *color_images([e for e in entries if e.is_color_image], label_map, cfg),
    ]
    if not any(finding.kind == "mask-0-255" for finding in found):
        found += wrong_ids(ids, label_map)
        void = [e for e in ids if label_map.are_void(e.ids)]
        if void:
            what = f"{plural(len(void), 'label')} containing only void"
            files = [str(e.label_path) for e in void]
            cure = "check DATA.label_map, DATA.ignore_ids and the labels themselves"
            cure = cure if are_most(void, ids) else blank_lines(void)
            found.append(Finding("all-void", what, files, cure))
    return found


def other_coding(entries: Sequence[Entry], label_map: LabelMap, cfg: Config) -> Iterable[Finding]:
    """Yield findings about labels that contradict each other, or one half of which is void."""
    facts = [e.label for e in entries if e.label]
    half = (fault for fault in voids(facts, label_map) if fault.kind == "half-void")
    for fault in (*contradictions(facts, label_map), *half):
        cure = fault.fix.replace("the file of TEST.colors_path", str(cfg.colors_path))
        if not cure.startswith("DATA."):
            lines = blank_lines(e for e in entries if e.label_path in set(fault.paths))
            cure = f"{cure}; or leave {'them' if len(fault.paths) > 1 else 'it'} out: {lines}"
        what = f"{plural(len(fault.paths), 'label')}: {fault.what}"
        yield Finding(fault.kind, what, [str(path) for path in fault.paths], cure)


def wrong_ids(entries: Sequence[Entry], label_map: LabelMap) -> Iterable[Finding]:
    """Yield findings about ids outside 0..classes-1.

    One finding if a single cause explains all labels, otherwise one per cause of a single label.
    """
    wrong = [e for e in entries if label_map.wrong_ids(e.ids)]
    if not wrong:
        return
    whole = label_map.cause(union(entries))
    groups = defaultdict(list)
    for entry in wrong:
        kind = label_map.cause(entry.ids).kind if whole.kind == "other-ids" else whole.kind
        groups[kind].append(entry)
    for group in groups.values():
        found = union(group)
        cause = label_map.cause(found) if whole.kind == "other-ids" else whole
        names = {i: label_map.text(i) for i in label_map.wrong_ids(found)}
        files = []
        for entry in group:
            some = [(names[i], n) for i, n in entry.ids.items() if i in names][:3]
            pixels = ", ".join(f"{name} ({n} pixels)" for name, n in some)
            files.append(f"{entry.label_path}: {pixels}")
        more = ", ..." if len(names) > IDS_SHOWN else ""
        shown = ", ".join([*names.values()][:IDS_SHOWN]) + more
        total = sum(found[i] for i in names)
        what = f"{plural(len(group), 'label')} with {shown} ({total} pixels): {cause.looks_like}"
        yield Finding(cause.kind, what, files, cause.fix)


def union(entries: Iterable[Entry]) -> Counter[int]:
    """Add up the histograms (id -> pixels) of several labels."""
    total: Counter[int] = Counter()
    for entry in entries:
        total.update(entry.ids)
    return total


def color_images(entries: Sequence[Entry], label_map: LabelMap, cfg: Config) -> Iterable[Finding]:
    """Yield a finding if labels are RGB images where ids are expected."""
    if not entries:
        return
    files = [str(e.label_path) for e in entries]
    what = f"{plural(len(files), 'label')} saved as colours instead of ids"
    colors = sorted({i for e in entries for i in e.ids})
    unknown = [color_text(i) for i in colors if i not in label_map.colors]
    if len(colors) > MANY_COLORS:
        what += f", {len(colors)} different ones: lossy compression (JPEG) or smoothed edges"
        cure = "save them again as PNG, without smoothing"
    elif not unknown:
        cure = f"DATA.label_map: {cfg.colors_path}"
    elif len(unknown) < len(colors):
        lines = " ".join(f"'{c} {label_map.ignore_label}'" for c in unknown)
        cure = (
            f"DATA.label_map: label_map.txt, after (cat {shlex.quote(cfg.colors_path)}; "
            f"printf '\\n%s' {lines}) > label_map.txt, which ignores the colours without a class"
        )
    else:
        cure = (
            "DATA.label_map: a file with a line `R G B id` for each colour: "
            f"{', '.join(unknown[:20])}{', ...' if len(unknown) > 20 else ''}"
        )
    yield Finding("colour-label", what, files, cure)
