"""What one pair of files holds."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from util.data.coding import LabelFacts, facts_of
from util.data.file import CodingError, Header
from util.data.image import decode_image
from util.data.label import decode_label
from util.data.list_file import Sample
from util.data.load import check_pair
from util.error import DataError


@dataclass(frozen=True)
class Facts:
    """What is wrong with the files of a pair, as (kind, file, sentence), and what they hold.

    `label` says how the label is stored; where it `is_color_image` (against the config) its ids are
    colours r*65536+g*256+b.
    """

    faults: list[tuple[str, Path, str]] = field(default_factory=list)
    digest: bytes = b""  # of the image's pixels
    label: LabelFacts | None = None
    is_color_image: bool = False

    @property
    def ids(self) -> dict[int, int]:
        """Raw id -> pixels."""
        return self.label.ids if self.label else {}


def inspect_pair(sample: Sample, *, as_colors: bool) -> Facts:
    """Decode image and label as training does, and count."""
    assert sample.label is not None
    faults, header, label, digest = [], None, None, b""
    try:
        image, turned = decode_image(sample.image)
        digest = hashlib.blake2b(image, digest_size=16, key=str(image.shape).encode()).digest()
        header = Header(sample.image, "RGB", *image.shape[:2], turned)
    except DataError as error:
        faults.append((_kind_of(error, sample.image), sample.image, str(error)))
    try:
        label = decode_label(sample.label, as_colors=as_colors)
    except DataError as error:
        faults.append((_kind_of(error, sample.label), sample.label, str(error)))
    if label is None:
        return Facts(faults, digest)
    try:
        if header is not None:
            check_pair(header, label.header)
    except DataError as error:
        kind = "coding" if isinstance(error, CodingError) else "size-mismatch"
        faults.append((kind, sample.label, str(error)))
    if label.turned > 1:
        sentence = f"label {sample.label} has EXIF orientation {label.turned}"
        faults.append(("turned-label", sample.label, sentence))
    return Facts(faults, digest, facts_of(label), label.kind == "colors" and not as_colors)


def _kind_of(error: DataError, path: Path) -> str:
    if isinstance(error, CodingError):
        return "coding"
    if path.is_file() and path.stat().st_size == 0:
        return "empty-file"
    # What Pillow says of a JPEG and of a PNG that end too early.
    is_cut = any(words in str(error) for words in ("truncated", "unrecognized data stream"))
    return "truncated" if is_cut else "unreadable"
