"""Load an image with its label, the same way for training, testing, checking and browsing."""

import logging
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import numpy as np

from util.data.coding import LabelFacts, check_coding, facts_of, voids
from util.data.file import CodingError, Header
from util.data.image import decode_image
from util.data.label import Label, decode_label, ids_of, pack_colors
from util.data.label_map import LabelMap
from util.data.list_file import Sample, parse_line, read_lines
from util.error import DataError

FIRST = 16  # labels, spread over the list, to compare before a run starts
MANY_COLORS = 256  # more can only come from a photo, lossy compression or smoothing

log = logging.getLogger("semseg")
Item = TypeVar("Item")


def load(
    sample: Sample, label_map: LabelMap, *, like: LabelFacts | None = None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return image (H, W, 3) uint8 and label (H, W) of class ids, None if the list has no labels.

    Both are upright. Raises DataError if a file is unreadable, if image and label do not match, or
    if the label holds wrong ids or is coded differently from `like`.
    """
    image, header = decode_image(sample.image)
    if sample.label is None:
        return image, None
    label = decode_label(sample.label, as_colors=label_map.is_of_colors)
    check_pair(header, label.header)
    if like is not None and label.storage != like.storage:
        check_coding([like, facts_of(label)], label_map)
    return image, class_ids(label, label_map)


def load_label(path: Path, label_map: LabelMap) -> np.ndarray:
    """Return the class ids (H, W) of a label file. Raises DataError."""
    return class_ids(decode_label(path, as_colors=label_map.is_of_colors), label_map)


def class_ids(label: Label, label_map: LabelMap) -> np.ndarray:
    """Map the raw ids of a label to class ids and check them. Raises DataError."""
    raw = label.raw if label_map.is_of_colors else ids_of(label)
    return label_map.apply(raw, label.path)


def check_pair(image: Header, label: Header) -> None:
    """Raise DataError unless label and image have the same size and orientation.

    A label with orientation 1 (none) may match the upright image or the image as stored. If their
    sizes do not tell which, it is refused. A label with orientation 0 matches the upright image.
    """
    size, label_size = f"{image.width}x{image.height}", f"{label.width}x{label.height}"
    tag = f"image {image.path} has EXIF orientation {image.orientation}"
    as_stored = f"`exiftool -Orientation= {image.path}`"
    if label.orientation not in (0, 1, image.orientation):
        raise CodingError(
            f"label {label.path} has EXIF orientation {label.orientation}, but its image "
            f"{image.path} has {image.orientation}: save both upright, or remove the wrong tag "
            "(`exiftool -Orientation= FILE`)"
        )
    is_alike = (image.height, image.width) == (label.height, label.width)
    is_on_its_side = (image.width, image.height) == (label.height, label.width)
    if not is_alike and is_on_its_side and label.orientation == 1 and image.orientation >= 5:
        raise CodingError(
            f"{tag}, but its label {label.path} matches the image as stored: remove the image's "
            f"tag ({as_stored}), or rotate the label"
        )
    if not is_alike:
        raise DataError(
            f"image {image.path} is {size}, but its label {label.path} is {label_size} (width x "
            "height): they must have the same size"
        )
    is_ambiguous = image.orientation in (2, 3, 4) or image.width == image.height
    if label.orientation == 1 and image.orientation > 1 and is_ambiguous:
        raise CodingError(
            f"{tag}, but its label {label.path} has none, so it is unclear which side of the label "
            f"is up: run `mogrify -auto-orient {image.path}` if the label matches the image as "
            f"displayed, otherwise {as_stored}"
        )


def check_first(
    samples: Sequence[Sample], label_map: LabelMap, *, beside: Sequence[LabelFacts] = ()
) -> LabelFacts | None:
    """Compare FIRST labels of a list with each other and with `beside`, those of another list.

    Returns the facts about the very first label, None if the list has no labels. Raises DataError;
    warns of void labels.
    """
    facts = first_facts(samples, label_map)
    if facts:
        check_coding([*beside, *facts], label_map)
    for fault in voids(facts, label_map):
        count = f"one of {len(fault.paths)} among the {len(facts)} labels read"
        log.warning(f"label {fault.paths[0]} ({count}) {fault.what}: {fault.fix}")
    return facts[0] if facts else None


def first_facts(samples: Sequence[Sample], label_map: LabelMap) -> list[LabelFacts]:
    """Return the facts about FIRST labels of a list. Raises DataError if one holds wrong ids."""
    facts = []
    for sample in spread([sample for sample in samples if sample.label is not None]):
        assert sample.label is not None
        try:
            label = decode_label(sample.label, as_colors=label_map.is_of_colors)
            class_ids(label, label_map)
        except DataError:
            if are_swapped(sample, label_map):
                raise DataError(
                    f"image {sample.image} holds class ids and label {sample.label} is a photo: "
                    "exchange the two columns of the list"
                ) from None
            raise
        facts.append(facts_of(label))
    return facts


def are_swapped(sample: Sample, label_map: LabelMap) -> bool:
    """Whether the image is a valid map of class ids, and the label a photo of MANY_COLORS."""
    assert sample.label is not None
    try:
        class_ids(decode_label(sample.image, as_colors=label_map.is_of_colors), label_map)
        return len(np.unique(pack_colors(decode_image(sample.label)[0]))) > MANY_COLORS
    except DataError:
        return False


def readable_facts(list_path: str, data_root: str, label_map: LabelMap) -> list[LabelFacts]:
    """Return the facts about FIRST labels of a list that may be missing, without bad ones."""
    facts, lines = [], []
    with suppress(DataError, OSError):
        lines = spread(read_lines(list_path, data_root))
    for _, line in lines:
        with suppress(DataError):
            sample = parse_line(line, data_root, has_labels=True, place=list_path)
            facts += first_facts([sample], label_map)
    return facts


def spread(items: Sequence[Item]) -> list[Item]:
    """Choose FIRST items at equal distances."""
    chosen = np.unique(np.linspace(0, len(items) - 1, FIRST).astype(int)) if items else ()
    return [items[i] for i in chosen]
