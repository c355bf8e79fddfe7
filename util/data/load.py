"""An image with its label, as training, validation, test, dataset check and browse see them."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from util.data.coding import LabelFacts, check_coding, facts_of, voids
from util.data.file import CodingError, Header
from util.data.image import decode_image
from util.data.label import Label, decode_label, ids_of
from util.data.label_map import LabelMap
from util.data.list_file import Sample
from util.error import DataError

FIRST = 16  # labels, spread over the list, that are compared before a run begins

log = logging.getLogger("semseg")


def load(
    sample: Sample, label_map: LabelMap, *, like: LabelFacts | None = None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Image (H, W, 3) uint8 and label (H, W) of class ids, None where the list has no labels.

    Both are upright, of one size, and coded as the label `like`. Raises DataError.
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
    """The class ids (H, W) of a label without its image. Raises DataError."""
    return class_ids(decode_label(path, as_colors=label_map.is_of_colors), label_map)


def class_ids(label: Label, label_map: LabelMap) -> np.ndarray:
    """Raw ids through the map, checked. Raises DataError."""
    raw = label.raw if label_map.is_of_colors else ids_of(label)
    return label_map.apply(raw, label.path)


def check_pair(image: Header, label: Header) -> None:
    """Raise DataError unless a label fits its image: height and width, and which side is up.

    A label without an orientation of its own (1) was drawn on the image as shown or as stored: the
    sizes tell which, if they can. `turned` 0 says that it was drawn on the image as shown.
    """
    size, label_size = f"{image.width}x{image.height}", f"{label.width}x{label.height}"
    tag = f"image {image.path} has EXIF orientation {image.turned}"
    as_stored = f"`exiftool -Orientation= {image.path}`"
    if label.turned not in (0, 1, image.turned):
        raise CodingError(
            f"label {label.path} has EXIF orientation {label.turned}, its image {image.path} has "
            f"{image.turned}: save both upright, or remove the tag that is wrong "
            "(`exiftool -Orientation= FILE`)"
        )
    is_alike = (image.height, image.width) == (label.height, label.width)
    is_on_its_side = (image.width, image.height) == (label.height, label.width)
    if not is_alike and is_on_its_side and label.turned == 1 and image.turned >= 5:
        raise CodingError(
            f"{tag}, and its label {label.path} lies on its side, as drawn on the image as "
            f"stored: remove the image's tag ({as_stored}), or turn the label"
        )
    if not is_alike:
        raise DataError(
            f"image {image.path} is {size}, its label {label.path} is {label_size} (width x "
            "height): they must be of one size"
        )
    if label.turned == 1 and image.turned > 1 and (image.turned < 5 or image.width == image.height):
        raise CodingError(
            f"{tag}, its label {label.path} has none, so which side of the label is up is not "
            f"known: `mogrify -auto-orient {image.path}` if it was drawn on the image as shown, "
            f"else {as_stored}"
        )


def check_first(samples: Sequence[Sample], label_map: LabelMap) -> LabelFacts | None:
    """Compare the first labels of a list with each other. Raises DataError.

    Returns what the very first is like, None where the list has no labels.
    """
    paths = [sample.label for sample in samples if sample.label is not None]
    facts = []
    for i in np.unique(np.linspace(0, len(paths) - 1, FIRST).astype(int)) if paths else ():
        label = decode_label(paths[i], as_colors=label_map.is_of_colors)
        class_ids(label, label_map)
        facts.append(facts_of(label))
    check_coding(facts, label_map)
    for fault in voids(facts, label_map):
        count = f"{len(fault.paths)} of {len(facts)} labels read"
        log.warning(f"{count}, such as {fault.paths[0]}: {fault.what}: {fault.fix}")
    return facts[0] if facts else None
