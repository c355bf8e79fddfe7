"""Findings about lists and files: missing, damaged, mismatched, repeated or in both splits."""

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from pathlib import Path

from util.data.list_file import parse_line, read_lines
from util.error import DataError
from util.extra.dataset_check.entry import Entry, are_most, blank_lines
from util.extra.dataset_check.report import Finding, plural

AGAIN = "copy it from the source again, or leave it out"
FAULTS = {  # kind -> what, fix
    "missing": ("line naming a missing file", ""),
    "same-file": (
        "line whose image and label are the same file",
        "write the path of the label after that of its image, or leave the line out",
    ),
    "swapped-columns": (
        "line whose columns look swapped",
        "exchange the two columns of the list: a line is `image label`",
    ),
    "empty-file": ("file of 0 bytes", AGAIN),
    "truncated": ("file cut short", AGAIN),
    "unreadable": ("file that cannot be read", AGAIN),
    "coding": (
        "file in an encoding that cannot be read reliably",
        "follow the advice given for the file, or leave it out",
    ),
    "size-mismatch": (
        "label whose size differs from the image's",
        "recreate the label at the image's size (nearest neighbour), or leave it out",
    ),
    "turned-label": (
        "label with an EXIF orientation, which is applied here but ignored by many programs",
        "save it upright without the tag, for example with `mogrify -auto-orient FILE`, or leave "
        "it out",
    ),
}


def wrong_root(entries: Sequence[Entry], data_root: str) -> Finding:
    """Report a list in which no line names existing files."""
    sentences = [fault.sentence for entry in entries for fault in entry.faults]
    root = _likely_root(entries[0].list_path, data_root)
    cure = f"DATA.data_root: {root}" if root else f"correct the list: {sentences[0]}"
    return Finding("missing", plural(len(entries), FAULTS["missing"][0]), sentences, cure)


def _likely_root(list_path: Path, data_root: str) -> Path | None:
    """Find a folder near the list or data_root below which the files of the first line exist."""
    line = read_lines(list_path, data_root)[0][1]
    near = [*Path(data_root).parents, *list_path.parents]
    for folder in [Path.cwd(), *near]:
        try:
            parse_line(line, folder, has_labels=True, place="")
        except DataError:
            continue
        return folder
    return None


def damaged_files(entries: Sequence[Entry]) -> Iterable[Finding]:
    """Yield findings about files that training cannot read or cannot use as a pair."""
    found = defaultdict(list)
    for entry in entries:
        for fault in entry.faults:
            found[fault.kind].append((entry, fault))
    for kind, cases in found.items():
        what, cure = FAULTS[kind]
        sentences = list(dict.fromkeys(fault.sentence for _, fault in cases))
        of_lines = kind in ("missing", "same-file", "swapped-columns")
        count = len(sentences) if of_lines else len({fault.path for _, fault in cases})
        faulty = [entry for entry, _ in cases]
        if kind != "swapped-columns" and not (cure and are_most(faulty, entries)):
            cure = ": ".join(filter(None, (cure, blank_lines(faulty))))
        yield Finding(kind, plural(count, what), sentences, cure)


def repetitions(entries: Sequence[Entry]) -> Iterable[Finding]:
    """Yield findings about images listed twice, shared labels, and images in both train and val."""
    entries = [entry for entry in entries if entry.sample]
    again, shared, leaked = [], [], []
    for first, *others in _groups(entries, lambda e: (e.split, e.image_path)):
        place = f"also on line {first.number}"
        again += [(e, f"{e.list_path} line {e.number}: {e.image_path}, {place}") for e in others]
    for same in _groups(entries, lambda e: (e.split, e.label_path)):
        _, *others = {e.image_path: e for e in same}.values()
        shared += [(e, f"{e.label_path}: {e.image_path}") for e in others]
    for same in _groups([e for e in entries if e.digest], lambda e: e.digest):
        val = next((e for e in same if e.split == "val"), None)
        if val:
            train = [e for e in same if e.split == "train"]
            leaked += [(e, f"{e.image_path} = {val.image_path}") for e in train]
    for kind, what, cases in (
        ("duplicate-line", "line repeating an image", again),
        ("shared-label", "image sharing the label of another one", shared),
        ("train-val-leak", "image in both train and val (identical pixels)", leaked),
    ):
        if cases:
            texts, faulty = [text for _, text in cases], [entry for entry, _ in cases]
            cure = blank_lines(faulty)
            if kind == "train-val-leak" and are_most(faulty, entries):
                cure = (
                    "set DATA.val_list to a list of other images: DATA.train_list and "
                    "DATA.val_list hold the same ones"
                )
            yield Finding(kind, plural(len(cases), what), texts, cure)


def _groups(entries: Iterable[Entry], key: Callable[[Entry], Hashable]) -> Iterable[list[Entry]]:
    groups = defaultdict(list)
    for entry in entries:
        groups[key(entry)].append(entry)
    return groups.values()
