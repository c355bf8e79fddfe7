"""Samples -> arrays -> batches: the same ones for any number of workers and processes."""

import atexit
import multiprocessing
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from util.config import Config
from util.data.augment import FusedAugmentation
from util.data.cache import DecodedCache, open_cache
from util.data.coding import LabelFacts
from util.data.label_map import LabelMap, label_map_of
from util.data.list_file import Sample, read_list
from util.data.load import check_first, first_facts, load
from util.data.transform import Tensors, train_transform, val_transform
from util.data.worker import release, signals_held, start_worker
from util.error import ConfigError, DataError, UserError, is_out_of_memory

LabelledTransform = Callable[[np.ndarray, np.ndarray, Generator], Tensors]


@dataclass(frozen=True)
class SegmentationData(Dataset):
    """Transformed images with labels: (epoch, index) -> image (3, h, w), label (h, w).

    The random numbers of a sample depend only on (seed, epoch, index). Labels must be coded like
    the one that `like` describes.
    """

    samples: Sequence[Sample]
    transform: LabelledTransform
    label_map: LabelMap
    seed: int
    like: LabelFacts | None = None
    cache: DecodedCache | None = None

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: tuple[int, int]) -> Tensors | UserError:
        epoch, index = key
        try:
            image, label = self.load(index)
            return self.transform(image, label, np.random.default_rng((self.seed, epoch, index)))
        except UserError as error:
            return error  # Loader raises it: a worker would add its traceback to the message
        except (cv2.error, MemoryError) as error:
            path, (height, width) = self.samples[index].image, label.shape
            reason = "out of memory" if is_out_of_memory(error) else str(error)
            return DataError(
                f"image {path} of {width}x{height} cannot be augmented ({reason}): cut it into "
                "tiles, or lower TRAIN.scale_max"
            )

    def load(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the image (H, W, 3) and its label (H, W) of mapped and checked class ids."""
        return self.cache.load(index, self._decode) if self.cache else self._decode(index)

    def _decode(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        image, label = load(self.samples[index], self.label_map, like=self.like)
        assert label is not None
        return image, label


def build_data(
    cfg: Config, *, is_training: bool, beside: SegmentationData | None = None
) -> SegmentationData:
    """Build the data of train_list, augmented, or val_list, centre-cropped. Raises DataError.

    The first labels are compared with those of `beside`, too.
    """
    list_path = cfg.train_list if is_training else cfg.val_list
    samples, label_map = read_list(list_path, cfg.data_root, has_labels=True), label_map_of(cfg)
    crop = (cfg.train_h, cfg.train_w)
    transform: LabelledTransform = val_transform(crop, ignore_label=cfg.ignore_label)
    if is_training:
        transform = steps = train_transform(
            crop,
            scale=(cfg.scale_min, cfg.scale_max),
            rotate=(cfg.rotate_min, cfg.rotate_max),
            ignore_label=cfg.ignore_label,
        )
        if cfg.augment == "fused":
            largest_id = max(cfg.classes - 1, cfg.ignore_label)
            transform = FusedAugmentation(steps, largest_id)
    others = first_facts(beside.samples, label_map) if beside else ()
    like = check_first(samples, label_map, beside=others)
    cache = None
    if is_training and cfg.cache_folder:
        cache = open_cache(cfg.cache_folder, cfg.cache_gib, samples, label_map)
    return SegmentationData(samples, transform, label_map, cfg.manual_seed or 0, like, cache)


class BatchSampler(Sampler):
    """Batches of (epoch, index) for one of `world_size` processes.

    In training (`shuffle`) each process takes its share of the same global batches, which depend
    only on (seed, epoch); the last incomplete one is dropped. Otherwise each sample occurs exactly
    once across all processes, in order, without padding.
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
        """Make the next iteration run through this epoch, from this step on."""
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
        """Return the sample indices of a training step for each process."""
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
    """Batches (N, 3, h, w), (N, h, w) from workers; iterating raises DataError for a bad file."""

    def __init__(
        self, data: SegmentationData, sampler: BatchSampler, *, workers: int, pin_memory: bool
    ) -> None:
        self.data, self.sampler = data, sampler
        may_end = multiprocessing.Semaphore(0)
        atexit.register(release, may_end, workers)
        weakref.finalize(self, release, may_end, workers)
        self._loader = DataLoader(
            data,
            batch_sampler=sampler,
            num_workers=workers,
            collate_fn=_collate,
            worker_init_fn=partial(start_worker, may_end),
            pin_memory=pin_memory,
            persistent_workers=workers > 0,
            # The default generator also draws the dropout masks. If each iteration drew its seed
            # from it, a run resumed within an epoch would differ.
            generator=torch.Generator(),
        )

    def __len__(self) -> int:
        return len(self.sampler)

    def names(self, epoch: int, step: int) -> list[list[str]]:
        """Return the image names of a training step for each process."""
        batches = self.sampler.batches(epoch, step)
        return [[self.data.samples[i].image.name for i in batch] for batch in batches]

    def __iter__(self) -> Iterator[Tensors]:
        with signals_held():
            batches = iter(self._loader)
        for batch in batches:
            if isinstance(batch, UserError):
                raise batch
            yield batch


def build_loader(
    cfg: Config,
    *,
    is_training: bool,
    beside: SegmentationData | None = None,
    rank: int = 0,
    world_size: int = 1,
    pin_memory: bool = False,
) -> Loader:
    """Build one process's loader of augmented train_list batches, or of val_list centre crops.

    Labels must be coded like those of `beside`, if given. Raises DataError, or ConfigError if a
    batch is larger than the list.
    """
    data = build_data(cfg, is_training=is_training, beside=beside)
    batch_size = cfg.batch_size if is_training else cfg.batch_size_val
    if is_training and len(data) < batch_size:
        raise ConfigError(
            f"TRAIN.batch_size {batch_size} exceeds the {len(data)} images of {cfg.train_list}, so "
            "an epoch would have no step: lower it"
        )
    sampler = BatchSampler(
        len(data),
        max(1, batch_size // world_size),
        shuffle=is_training,
        seed=data.seed,
        rank=rank,
        world_size=world_size,
    )
    return Loader(data, sampler, workers=-(-cfg.workers // world_size), pin_memory=pin_memory)


def _collate(samples: list) -> list[Tensor] | UserError:
    for sample in samples:
        if isinstance(sample, UserError):
            return sample
    return default_collate(samples)
