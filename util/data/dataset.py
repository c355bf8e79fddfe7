"""Samples -> arrays -> batches, the same ones whatever the number of workers and processes."""

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from util.config import Config
from util.data.augment import FusedAugmentation
from util.data.image import check_label, check_sizes, read_image, read_label
from util.data.label_map import LabelMap, load_label_map
from util.data.list_file import Sample, read_list
from util.data.transform import train_transform, val_transform
from util.error import ConfigError, UserError

LabelledTransform = Callable[[np.ndarray, np.ndarray, Generator], tuple[Tensor, Tensor]]


def load_label(path: Path, label_map: LabelMap, *, classes: int) -> np.ndarray:
    """The ids (H, W) of a label file, mapped and checked. Raises DataError."""
    label = label_map.apply(read_label(path, as_colors=label_map.is_of_colors), path)
    check_label(label, path, classes=classes, ignore_label=label_map.ignore_label)
    return label


class SegmentationData(Dataset):
    """Labelled images through a transform: [(epoch, index)] -> image (3, h, w), label (h, w).

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
        label_map: LabelMap | None = None,
    ) -> None:
        self.samples = samples
        self.transform = transform
        self.label_map = label_map or LabelMap(ignore_label=ignore_label)
        self.classes = classes
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
        """Image (H, W, 3) and label (H, W) of checked ids, the label map applied."""
        sample = self.samples[index]
        assert sample.label is not None
        image = read_image(sample.image)
        label = load_label(sample.label, self.label_map, classes=self.classes)
        check_sizes(image, label, sample.image, sample.label)
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
        order = self._order(self.epoch)
        for step in range(self.first_step, len(self)):
            yield [(self.epoch, int(i)) for i in self._part(order, step, self.rank)]

    def batches(self, epoch: int, step: int) -> list[list[int]]:
        """The indices of one step of training, by process."""
        order = self._order(epoch)
        return [self._part(order, step, rank).tolist() for rank in range(self.world_size)]

    def _order(self, epoch: int) -> np.ndarray:
        if self.shuffle:
            return np.random.default_rng((self.seed, epoch)).permutation(self.count)
        return np.arange(self.rank, self.count, self.world_size)

    def _part(self, order: np.ndarray, step: int, rank: int) -> np.ndarray:
        position = step * self.world_size + rank if self.shuffle else step
        return order[position * self.batch_size : (position + 1) * self.batch_size]


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
            # Else each start of an iteration would draw from the generator of the dropout masks,
            # and a run resumed within an epoch would differ.
            generator=torch.Generator(),
        )

    def __len__(self) -> int:
        return len(self.sampler)

    def names(self, epoch: int, step: int) -> list[list[str]]:
        """The images of one step of training, by process."""
        batches = self.sampler.batches(epoch, step)
        return [[self.data.samples[i].image.name for i in batch] for batch in batches]

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in self._loader:
            if isinstance(batch, UserError):
                raise batch
            yield batch


def build_loader(
    cfg: Config, *, is_training: bool, rank: int = 0, world_size: int = 1, pin_memory: bool = False
) -> Loader:
    """Augmented batches of train_list, or centre crops of val_list, for one of the processes.

    Raises DataError, or ConfigError for a batch larger than the list.
    """
    list_path = cfg.train_list if is_training else cfg.val_list
    samples = read_list(list_path, cfg.data_root, has_labels=True)
    crop = (cfg.train_h, cfg.train_w)
    if is_training:
        transform = train_transform(
            crop,
            scale=(cfg.scale_min, cfg.scale_max),
            rotate=(cfg.rotate_min, cfg.rotate_max),
            ignore_label=cfg.ignore_label,
        )
        if cfg.augment == "fused":
            largest_id = max(cfg.classes - 1, cfg.ignore_label)
            transform = FusedAugmentation(transform, largest_id)
    else:
        transform = val_transform(crop, ignore_label=cfg.ignore_label)
    data = SegmentationData(
        samples,
        transform,
        classes=cfg.classes,
        ignore_label=cfg.ignore_label,
        seed=cfg.manual_seed,
        label_map=load_label_map(
            cfg.label_map,
            ignore_ids=cfg.ignore_ids,
            classes=cfg.classes,
            ignore_label=cfg.ignore_label,
        ),
    )
    batch_size = cfg.batch_size if is_training else cfg.batch_size_val
    if is_training and len(samples) < batch_size:
        raise ConfigError(
            f"TRAIN.batch_size {batch_size} is more than the {len(samples)} images of "
            f"{list_path}: an epoch would have no step"
        )
    sampler = BatchSampler(
        len(samples),
        max(1, batch_size // world_size),
        shuffle=is_training,
        seed=cfg.manual_seed,
        rank=rank,
        world_size=world_size,
    )
    return Loader(
        data,
        sampler,
        workers=-(-cfg.workers // world_size),
        pin_memory=pin_memory,
    )


def _collate(samples: list) -> list[Tensor] | UserError:
    for sample in samples:
        if isinstance(sample, UserError):
            return sample
    return default_collate(samples)


def _start_worker(worker: int) -> None:
    # A scheduler's signals go to all processes: the main one saves, with its workers alive.
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # Workers run side by side: threads inside each only get in the others' way.
    cv2.setNumThreads(0)
    torch.set_num_threads(1)


def _end_with_parent() -> None:
    """Obey SIGTERM from the process that started this one, and from nobody else."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)
