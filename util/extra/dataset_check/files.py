"""Findings about lists and files: missing, damaged, of two sizes, listed twice, in two splits."""

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from util.data.list_file import parse_line, read_lines
from util.error import DataError
from util.extra.dataset_check.report import Entry, Finding, blank_lines, plural

DAMAGE = {
    "empty-file": "file of no bytes",
    "truncated": "file that ends too early",
    "unreadable": "file that cannot be read",
    "coding": "file stored in a way that cannot be read for certain",
    "size-mismatch": "label of another size than its image",
}
DAMAGE_CURES = {
    "empty-file": "copy it from the source again, or leave it out",
    "truncated": "copy it from the source again, or leave it out",
    "unreadable": "copy it from the source again, or leave it out",
    "coding": "do what the line above says, or leave it out",
    "size-mismatch": "make the label at the image's size again (nearest neighbour), or leave it "
    "out",
}


def read_entries(
    split: str, list_path: str, data_root: str
) -> tuple[list[Entry], list[tuple[int, str]]]:
    """(entries whose files exist, (line number, sentence) of the other lines) of a list.

    Raises DataError where there is no list.
    """
    entries, broken = [], []
    for number, line in read_lines(list_path, data_root):
        try:
            place = f"{list_path} line {number}"
            sample = parse_line(line, data_root, has_labels=True, place=place)
            entries.append(Entry(split, Path(list_path), number, sample))
        except DataError as error:
            broken.append((number, str(error)))
    return entries, broken


def missing_files(
    list_path: str, data_root: str, broken: Sequence[tuple[int, str]], *, are_all: bool
) -> Iterable[Finding]:
    """Lines that name files which are not there."""
    if not broken:
        return
    cure = blank_lines((Path(list_path), number) for number, _ in broken)
    if are_all:
        root = _likely_root(list_path, data_root)
        cure = f"DATA.data_root: {root}" if root else f"correct the list: {broken[0][1]}"
    files = [sentence for _, sentence in broken]
    yield Finding("missing", f"{plural(len(files), 'line')} of missing files", files, cure)


def _likely_root(list_path: str, data_root: str) -> Path | None:
    """A folder near the list or data_root below which the list's first files exist."""
    line = read_lines(list_path, data_root)[0][1]
    near = [Path(data_root), Path(list_path)]
    for folder in [Path.cwd(), *(parent for path in near for parent in path.parents)]:
        try:
            parse_line(line, folder, has_labels=True, place="")
        except DataError:
            continue
        return folder
    return None


def damaged_files(entries: Iterable[Entry]) -> Iterable[Finding]:
    """Files that training could not read, or could not use as a pair."""
    found = defaultdict(list)
    for entry in entries:
        for kind, path, sentence in entry.facts.faults:
            found[kind].append((entry, path, sentence))
    for kind, cases in found.items():
        lines = blank_lines((entry.list_path, entry.number) for entry, _, _ in cases)
        sentences = list(dict.fromkeys(sentence for _, _, sentence in cases))
        what = plural(len({path for _, path, _ in cases}), DAMAGE[kind])
        yield Finding(kind, what, sentences, f"{DAMAGE_CURES[kind]}: {lines}")


def repeated_lines(entries: Iterable[Entry]) -> Iterable[Finding]:
    """Images that a list names twice."""
    first: dict[tuple[str, Path], Entry] = {}
    again = []
    for entry in entries:
        earlier = first.setdefault((entry.split, entry.sample.image), entry)
        if earlier is not entry:
            again.append((entry, earlier.number))
    if again:
        files = [f"{e.list_path} line {e.number}: {e.sample.image}, as line {n}" for e, n in again]
        cure = blank_lines((entry.list_path, entry.number) for entry, _ in again)
        yield Finding(
            "duplicate-line", f"{plural(len(again), 'line')} for an image again", files, cure
        )


def leaks(entries: Iterable[Entry]) -> Iterable[Finding]:
    """Images of the training list whose very pixels are in the validation list too."""
    by_content = defaultdict(lambda: defaultdict(list))
    for entry in entries:
        if entry.facts.digest:
            by_content[entry.facts.digest][entry.split].append(entry)
    shared = [s for s in by_content.values() if {"train", "val"} <= s.keys()]
    if shared:
        files = [f"{s['train'][0].sample.image} = {s['val'][0].sample.image}" for s in shared]
        cure = blank_lines((e.list_path, e.number) for s in shared for e in s["train"])
        what = f"{plural(len(shared), 'image')} in both train and val (the same pixels)"
        yield Finding("train-val-leak", what, files, cure)


def shared_labels(entries: Iterable[Entry]) -> Iterable[Finding]:
    """Different images of a list with one label file."""
    by_label = defaultdict(dict)
    for entry in entries:
        by_label[entry.split, entry.sample.label].setdefault(entry.sample.image, entry)
    shared = {key[1]: images for key, images in by_label.items() if len(images) > 1}
    if shared:
        files = [f"{label}: {', '.join(map(str, p))}" for label, p in shared.items()]
        extra = (entry for images in shared.values() for entry in [*images.values()][1:])
        cure = "give each image its own label, or leave out all but one: " + blank_lines(
            (entry.list_path, entry.number) for entry in extra
        )
        what = f"{plural(len(shared), 'label')} used for several images"
        yield Finding("shared-label", what, files, cure)


def name_collisions(entries: Iterable[Entry]) -> tuple[list[Finding], list[Finding]]:
    """(findings: names in one folder that differ in case or extension alone; notes: one name in
    several folders, of which the results are kept apart by folder)."""
    by_path, by_name = defaultdict(set), defaultdict(set)
    entry_of = {}
    for entry in entries:
        image = entry.sample.image
        entry_of[entry.split, image] = entry
        by_path[entry.split, os.path.splitext(image)[0].lower()].add(image)
        by_name[entry.split, image.stem].add(image)
    findings, notes = [], []
    clashes = {key: sorted(images) for key, images in by_path.items() if len(images) > 1}
    if clashes:
        files = [", ".join(map(str, images)) for images in clashes.values()]
        extra = (
            entry_of[split, image] for (split, _), images in clashes.items() for image in images[1:]
        )
        cure = "rename all but one, or leave them out: " + blank_lines(
            (entry.list_path, entry.number) for entry in extra
        )
        what = f"{plural(len(clashes), 'name')} of several images in one folder"
        findings.append(Finding("name-collision", what, files, cure))
    repeats = [sorted(i) for i in by_name.values() if len({image.parent for image in i}) > 1]
    if repeats:
        files = [", ".join(map(str, images)) for images in repeats]
        what = f"{plural(len(repeats), 'name')} of images in several folders"
        cure = "nothing: results go to folders of the same names"
        notes.append(Finding("same-name", what, files, cure))
    return findings, notes


def with_facts(entries: Sequence[Entry], facts: Sequence) -> list[Entry]:
    """The entries with what was read of them."""
    return [replace(entry, facts=f) for entry, f in zip(entries, facts, strict=True)]
