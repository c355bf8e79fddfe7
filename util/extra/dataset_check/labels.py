"""Findings about what labels hold: wrong ids and what they come from, colours, nothing but void."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from util.data.cause import Cause, probable_cause, union
from util.data.coding import contradictions, voids
from util.data.label_map import LabelMap, color_text
from util.extra.dataset_check.counts import mapped_histogram
from util.extra.dataset_check.report import Entry, Finding, blank_lines, plural

MANY_COLORS = 256  # more than any set of classes: an image saved with loss, or smoothed
IDS_SHOWN = 6


@dataclass(frozen=True)
class Labelling:
    """How labels are meant: ids 0..classes-1 after the map, and each class's colour if known."""

    classes: int
    label_map: LabelMap
    map_source: str  # DATA.label_map where it is a file, else ''
    colors: np.ndarray | None  # (classes, 3) RGB
    colors_path: str

    def wrong_ids(self, raw: Iterable[int]) -> list[int]:
        """The raw ids that are neither a class nor ignored, sorted."""
        raw = np.array(sorted(raw), np.int64)
        ids = self.label_map.lookup(raw)
        is_wrong = ((ids < 0) | (ids >= self.classes)) & (ids != self.label_map.ignore_label)
        return raw[is_wrong].tolist()


def label_findings(entries: Sequence[Entry], labelling: Labelling) -> list[Finding]:
    """All that is wrong with what the labels hold."""
    gray = [e for e in entries if e.facts.ids and not e.facts.is_color_image]
    color = [e for e in entries if e.facts.is_color_image]
    found = [*wrong_ids(gray, labelling), *color_images(color, labelling)]
    if not any(finding.kind == "mask-0-255" for finding in found):
        found += void_labels(gray, labelling)
    return found


def wrong_ids(entries: Sequence[Entry], labelling: Labelling) -> Iterable[Finding]:
    """Labels that are coded otherwise than the rest; ids outside 0..classes-1, by cause."""
    facts = [e.facts.label for e in entries]
    faults = contradictions(facts, labelling.label_map)
    half = [f for f in voids(facts, labelling.label_map) if f.kind == "half-void"]
    for fault in [*faults, *half]:
        odd = [e for e in entries if e.facts.label.path in fault.paths]
        if fault.kind.startswith("mask"):
            yield _finding(odd, [255], Cause(fault.kind, fault.what, fault.fix))
            continue
        what = f"{plural(len(odd), 'label')}, the first of which {fault.what}"
        yield Finding(fault.kind, what, [str(e.sample.label) for e in odd], fault.fix)
    if any(fault.kind == "mask-0-255" for fault in faults):
        return
    wrong = {i: w for i, e in enumerate(entries) if (w := labelling.wrong_ids(e.facts.ids))}
    for cause, places in _by_cause(entries, wrong, labelling):
        ids = sorted({i for place in places for i in wrong[place]})
        yield _finding([entries[place] for place in places], ids, cause)


def _by_cause(
    entries: Sequence[Entry], wrong: dict[int, list[int]], labelling: Labelling
) -> Iterable[tuple[Cause, list[int]]]:
    """(cause, places in `entries`): one for all where one explains them, else label by label."""
    if not wrong:
        return
    whole = _cause(union(e.facts.ids for e in entries), labelling)
    if whole.kind != "other-ids":
        yield whole, list(wrong)
        return
    groups = defaultdict(list)
    for place in wrong:
        cause = _cause(entries[place].facts.ids, labelling)
        groups[cause.kind].append(place)
    for group in groups.values():
        yield _cause(union(entries[p].facts.ids for p in group), labelling), group


def _cause(found: dict[int, int], labelling: Labelling) -> Cause:
    """Why these raw ids, all of some labels, do not fit; some of them are wrong."""
    wrong, ignored = labelling.wrong_ids(found), labelling.label_map.ignore_label
    if labelling.label_map.is_of_colors:
        lines = " ".join(f"'{color_text(i)} {ignored}'" for i in wrong)
        cure = f"printf '%s\\n' {lines} >> {labelling.map_source}"
        return Cause("unnamed-colours", "are not named in DATA.label_map", cure)
    if labelling.label_map.table:
        ids = sorted({*labelling.label_map.ignore_ids, *wrong})
        cure = f"DATA.ignore_ids: {ids}"
        return Cause("unnamed-ids", "are not named in DATA.label_map", cure)
    cause = probable_cause(
        found,
        classes=labelling.classes,
        ignore_label=ignored,
        colors=labelling.label_map.colors,
    )
    assert cause is not None
    if cause.kind == "void-id" and labelling.label_map.ignore_ids:
        ids = sorted({*labelling.label_map.ignore_ids, *wrong})
        cause = Cause(cause.kind, cause.looks_like, f"DATA.ignore_ids: {ids}")
    return cause


def _finding(entries: Sequence[Entry], ids: Sequence[int], cause: Cause) -> Finding:
    total = sum(e.facts.ids.get(i, 0) for e in entries for i in ids)
    names = [color_text(i) for i in ids] if cause.kind == "unnamed-colours" else list(map(str, ids))
    shown = ", ".join(names[:IDS_SHOWN]) + (", ..." if len(names) > IDS_SHOWN else "")
    files = []
    for entry in entries:
        some = [(i, entry.facts.ids[i]) for i in ids if i in entry.facts.ids][:3]
        if cause.kind == "unnamed-colours":
            some = [(color_text(i), n) for i, n in some]
        files.append(f"{entry.sample.label}: {', '.join(f'{i} ({n} pixels)' for i, n in some)}")
    what = f"{plural(len(entries), 'label')} with {shown} ({total} pixels): {cause.looks_like}"
    return Finding(cause.kind, what, files, cause.fix)


def color_images(entries: Sequence[Entry], labelling: Labelling) -> Iterable[Finding]:
    """Labels that are RGB images where ids are expected."""
    if not entries:
        return
    files = [str(e.sample.label) for e in entries]
    what = f"{plural(len(files), 'label')} saved in colours instead of ids"
    colors = sorted({i for e in entries for i in e.facts.ids})
    if len(colors) > MANY_COLORS:
        what += f", {len(colors)} of them: saved with loss (JPEG) or smoothed edges"
        yield Finding("colour-label", what, files, "save them again as PNG, without smoothing")
        return
    known = set()
    if labelling.colors is not None and labelling.colors_path:
        known = {int(r) << 16 | int(g) << 8 | int(b) for r, g, b in labelling.colors}
    unknown = [color_text(i) for i in colors if i not in known]
    if not unknown:
        cure = f"DATA.label_map: {labelling.colors_path}"
    elif len(unknown) < len(colors):
        lines = " ".join(f"'{c} {labelling.label_map.ignore_label}'" for c in unknown)
        cure = (
            f"DATA.label_map: label_map.txt, after (cat {labelling.colors_path}; printf '%s\\n' "
            f"{lines}) > label_map.txt, which ignores the colours without a class"
        )
    else:
        cure = (
            "DATA.label_map: a file with a line `R G B id` for each colour: "
            f"{', '.join(unknown[:20])}{', ...' if len(unknown) > 20 else ''}"
        )
    yield Finding("colour-label", what, files, cure)


def void_labels(entries: Sequence[Entry], labelling: Labelling) -> Iterable[Finding]:
    """Labels without a single labelled pixel."""
    ignored = labelling.label_map.ignore_label
    void = [
        e for e in entries if mapped_histogram(e.facts.ids, labelling.label_map).keys() == {ignored}
    ]
    if void:
        cure = blank_lines((e.list_path, e.number) for e in void)
        files = [str(e.sample.label) for e in void]
        yield Finding("all-void", f"{plural(len(void), 'label')} of void alone", files, cure)
