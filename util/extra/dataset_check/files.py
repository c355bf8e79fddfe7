"""Findings about lists and files: missing, damaged, of two sizes, listed twice, in two splits."""

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from pathlib import Path

from util.data.list_file import parse_line, read_lines
from util.error import DataError
from util.extra.dataset_check.report import Entry, Finding, blank_lines, plural

AGAIN = "copy it from the source again, or leave it out"
FAULTS = {  # kind -> what, fix
    "empty-file": ("file of no bytes", AGAIN),
    "truncated": ("file that ends too early", AGAIN),
    "unreadable": ("file that cannot be read", AGAIN),
    "coding": (
        "file stored in a way that cannot be read for certain",
        "do what is said of the file, or leave it out",
    ),
    "size-mismatch": (
        "label of another size than its image",
        "make the label at the image's size again (nearest neighbour), or leave it out",
    ),
    "turned-label": (
        "label with an EXIF orientation, which is applied here but ignored by many programs",
        "save it upright without the tag, such as with `mogrify -auto-orient FILE`, or leave it "
        "out",
    ),
}


def read_entries(
    split: str, list_path: str, data_root: str
) -> tuple[list[Entry], list[tuple[Entry, str]]]:
    """(entries whose files exist, others with what is wrong) of a list.

    Raises DataError where there is no list.
    """
    entries, broken = [], []
    for number, line in read_lines(list_path, data_root):
        try:
            place = f"{list_path} line {number}"
            sample = parse_line(line, data_root, has_labels=True, place=place)
            entries.append(Entry(split, Path(list_path), number, sample))
        except DataError as error:
            broken.append((Entry(split, Path(list_path), number), str(error)))
    return entries, broken


def missing_files(
    broken: Sequence[tuple[Entry, str]], data_root: str, *, are_all: bool
) -> Iterable[Finding]:
    """Lines of a list that name files which are not there."""
    if not broken:
        return
    cure = blank_lines(entry for entry, _ in broken)
    if are_all:
        root = _likely_root(broken[0][0].list_path, data_root)
        cure = f"DATA.data_root: {root}" if root else f"correct the list: {broken[0][1]}"
    sentences = [sentence for _, sentence in broken]
    yield Finding("missing", f"{plural(len(broken), 'line')} of missing files", sentences, cure)


def _likely_root(list_path: Path, data_root: str) -> Path | None:
    """A folder near the list or data_root below which the list's first files exist."""
    line = read_lines(list_path, data_root)[0][1]
    near = [*Path(data_root).parents, *list_path.parents]
    for folder in [Path.cwd(), *near]:
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
        what, cure = FAULTS[kind]
        sentences = list(dict.fromkeys(sentence for _, _, sentence in cases))
        lines = blank_lines(entry for entry, _, _ in cases)
        count = len({path for _, path, _ in cases})
        yield Finding(kind, plural(count, what), sentences, f"{cure}: {lines}")


def repetitions(entries: Sequence[Entry]) -> Iterable[Finding]:
    """Images listed twice, labels of several images, images of train that are in val too."""
    again, shared, leaked = [], [], []
    for first, *others in _groups(entries, lambda e: (e.split, e.sample.image)):
        place = f"as line {first.number}"
        again += [(e, f"{e.list_path} line {e.number}: {e.sample.image}, {place}") for e in others]
    for same in _groups(entries, lambda e: (e.split, e.sample.label)):
        _, *others = {e.sample.image: e for e in same}.values()
        shared += [(e, f"{e.sample.label}: {e.sample.image}") for e in others]
    for same in _groups(entries, lambda e: e.facts.digest):
        val = next((e for e in same if e.split == "val"), None)
        if val and val.facts.digest:
            train = [e for e in same if e.split == "train"]
            leaked += [(e, f"{e.sample.image} = {val.sample.image}") for e in train]
    yield from _leave_out("duplicate-line", "line for an image again", again)
    yield from _leave_out("shared-label", "image with the label of another one", shared)
    yield from _leave_out("train-val-leak", "image in both train and val (the same pixels)", leaked)


def _groups(entries: Iterable[Entry], key: Callable[[Entry], Hashable]) -> Iterable[list[Entry]]:
    groups = defaultdict(list)
    for entry in entries:
        groups[key(entry)].append(entry)
    return groups.values()


def _leave_out(kind: str, what: str, cases: Sequence[tuple[Entry, str]]) -> Iterable[Finding]:
    """A finding whose fix is to leave the lines out."""
    if cases:
        texts = [text for _, text in cases]
        yield Finding(kind, plural(len(cases), what), texts, blank_lines(e for e, _ in cases))
