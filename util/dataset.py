"""List files -> samples -> batches, the same ones whatever the number of workers and processes."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from util.error import DataError, UserError
from util.image import check_label, check_sizes, read_image, read_label

LabelledTransform = Callable[[np.ndarray, np.ndarray, Generator], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Sample:
    """Paths of a picture and its label map; no label where the list has none (split test)."""

    image: Path
    label: Path | None


def read_list(list_path: str | Path, data_root: str | Path, *, has_labels: bool) -> list[Sample]:
    """Samples of a list file: `image label` a line (or `image` alone), relative to data_root.

    Paths may hold spaces. Raises DataError when the list, or a file it names, is missing.
    """
    list_path, data_root = Path(list_path), Path(data_root)
    if not list_path.is_file():
        raise DataError(
            f"no list file {list_path}: it holds `image label` lines relative to {data_root}; "
            "check DATA.train_list, DATA.val_list or TEST.test_list"
        )
    try:
        lines = list_path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise DataError(f"{list_path} is not a text file in UTF-8") from None
    samples = [
        _parse_line(line.strip(), data_root, has_labels, f"{list_path} line {number}")
        for number, line in enumerate(lines, 1)
        if line.strip()
    ]
    if not samples:
        raise DataError(f"{list_path} is empty: it must hold at least one `image label` line")
    return samples


def _parse_line(line: str, root: Path, has_labels: bool, place: str) -> Sample:
    words = line.split("\t") if "\t" in line else line.split(" ")
    if not has_labels:
        # A list with labels serves as well: the label is not used.
        for end in range(len(words), 0, -1):
            if (root / " ".join(words[:end])).is_file():
                return Sample(root / " ".join(words[:end]), None)
        raise DataError(f"{place}: no picture {root / line}")
    if len(words) == 1:
        raise DataError(f"{place} holds one path, '{line}': `image label` is needed to have labels")
    # Where paths hold spaces, the right split is the one whose two files exist.
    splits = [(" ".join(words[:i]), " ".join(words[i:])) for i in range(1, len(words))]
    for image, label in splits:
        if (root / image).is_file() and (root / label.strip()).is_file():
            return Sample(root / image, root / label.strip())
    image, label = next((s for s in splits if (root / s[0]).is_file()), splits[0])
    what, path = ("label", label) if (root / image).is_file() else ("picture", image)
    raise DataError(f"{place}: no {what} {root / path}; check the line and DATA.data_root")


def result_names(samples: Sequence[Sample]) -> list[str]:
    """A name for each sample's result files, unique in the list: its path below the folder that all
    pictures share, without extension (with it where two pictures differ in nothing else)."""
    paths = [os.fspath(sample.image) for sample in samples]
    base = os.path.commonpath([os.path.dirname(path) for path in paths])
    names = [os.path.relpath(os.path.splitext(path)[0], base) for path in paths]
    taken: dict[str, set[str]] = {}
    for name, path in zip(names, paths, strict=True):
        taken.setdefault(name, set()).add(path)
    return [
        name if len(taken[name]) == 1 else os.path.relpath(path, base)
        for name, path in zip(names, paths, strict=True)
    ]


class SegmentationData(Dataset):
    """Labelled pictures through a transform: [(epoch, index)] -> image (3, h, w), label (h, w).

    The random numbers of a sample depend on (seed, epoch, index) alone.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        transform: LabelledTransform,
        *,
        classes: int,
        ignore_label: int,
        seed: int,
    ) -> None:
        self.samples = samples
        self.transform = transform
        self.classes = classes
        self.ignore_label = ignore_label
        self.seed = seed

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, place: tuple[int, int]) -> tuple[Tensor, Tensor] | UserError:
        epoch, index = place
        try:
            image, label = self.load(index)
        except UserError as error:
            return error  # a worker cannot raise it in one piece: see Loader
        return self.transform(image, label, np.random.default_rng((self.seed, epoch, index)))

    def load(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Picture (H, W, 3) and checked label (H, W) as they are on disk."""
        sample = self.samples[index]
        assert sample.label is not None
        image, label = read_image(sample.image), read_label(sample.label)
        check_sizes(image, label, sample.image, sample.label)
        check_label(label, sample.label, classes=self.classes, ignore_label=self.ignore_label)
        return image, label


class BatchSampler(Sampler):
    """Batches of (epoch, index) for one of `world_size` processes.

    Training (`shuffle`): every process takes its part of the same global batches, a function of
    (seed, epoch) alone; the incomplete last one is dropped. Else: every sample exactly once over
    all processes, in order, no padding.
    """

    def __init__(
        self,
        count: int,
        batch_size: int,
        *,
        shuffle: bool,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.count, self.batch_size = count, batch_size
        self.shuffle, self.seed = shuffle, seed
        self.rank, self.world_size = rank, world_size
        self.epoch, self.first_step = 0, 0

    def start(self, epoch: int, first_step: int = 0) -> None:
        """The next iteration is of this epoch, from this batch on."""
        self.epoch, self.first_step = epoch, first_step

    def __len__(self) -> int:
        if self.shuffle:
            return self.count // (self.batch_size * self.world_size)
        return -(-len(range(self.rank, self.count, self.world_size)) // self.batch_size)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        if self.shuffle:
            order = np.random.default_rng((self.seed, self.epoch)).permutation(self.count)
        else:
            order = np.arange(self.rank, self.count, self.world_size)
        for step in range(self.first_step, len(self)):
            if self.shuffle:
                start = (step * self.world_size + self.rank) * self.batch_size
            else:
                start = step * self.batch_size
            yield [(self.epoch, int(i)) for i in order[start : start + self.batch_size]]


class Loader:
    """Batches (N, 3, h, w), (N, h, w) from workers; a bad file raises its DataError here."""

    def __init__(
        self, data: SegmentationData, sampler: BatchSampler, *, workers: int, pin_memory: bool
    ) -> None:
        self.data, self.sampler = data, sampler
        self._loader = DataLoader(
            data,
            batch_sampler=sampler,
            num_workers=workers,
            collate_fn=_collate,
            worker_init_fn=_start_worker,
            pin_memory=pin_memory,
            persistent_workers=workers > 0,
        )

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in self._loader:
            if isinstance(batch, UserError):
                raise batch
            yield batch


def _collate(samples: list) -> list[Tensor] | UserError:
    for sample in samples:
        if isinstance(sample, UserError):
            return sample
    return default_collate(samples)


def _start_worker(worker: int) -> None:
    # Workers run side by side: threads inside each only get in the others' way.
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
