"""benchmark data: both augmentations, image decoders, and loading from files to batches."""

import io
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image

from util.config import Config
from util.config.load import ROOT
from util.data.augment import FusedAugmentation
from util.data.dataset import build_loader
from util.data.image import read_image
from util.data.transform import denormalise, train_transform
from util.extra.benchmark.race import installed, race
from util.extra.benchmark.record import Record

DRAWS = 6  # augmentations of an image per turn
STEP = 0.05  # seconds per GPU step that loaders should keep up with
SCALE, ROTATE, IGNORE = (0.5, 2.0), (-10.0, 10.0), 255


@dataclass(frozen=True)
class Case:
    """A dataset's image size (height, width) and crop size."""

    name: str
    size: tuple[int, int]
    crop: int

    def image(self) -> np.ndarray:
        """Draw a street with camera noise."""
        image = read_image(ROOT / "figure/demo/toy_street.jpg")
        image = cv2.resize(image, self.size[::-1], interpolation=cv2.INTER_CUBIC)
        noise = np.random.default_rng(0).normal(0, 5, image.shape)
        return np.clip(image + noise, 0, 255).astype(np.uint8)

    def label(self) -> np.ndarray:
        """Draw regions of ids 0..18."""
        rng = np.random.default_rng(1)
        coarse = rng.integers(0, 19, (self.size[0] // 32, self.size[1] // 32)).astype(np.uint8)
        return cv2.resize(coarse, self.size[::-1], interpolation=cv2.INTER_NEAREST)


CASES = (Case("683x512, crop 473", (512, 683), 473), Case("2048x1024, crop 713", (1024, 2048), 713))


def run(record: Record, *, runs: int, cases: tuple[Case, ...] = CASES) -> None:
    """Add the rows of augmentation, decoding and loading, on one core."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    for case in cases:
        augmentation(record, case, runs)
        decoding(record, case, runs)
        loading(record, case, runs)


def augmentation(record: Record, case: Case, runs: int) -> None:
    """Measure the seconds to augment a decoded image."""
    image, label = case.image(), case.label()
    steps = train_transform((case.crop, case.crop), scale=SCALE, rotate=ROTATE, ignore_label=IGNORE)
    fused = FusedAugmentation(steps, IGNORE)

    def draw(transform: Callable) -> list:
        return [transform(image, label, np.random.default_rng(i)) for i in range(DRAWS)]

    ways = {"stepwise": lambda: draw(steps), "fused": lambda: draw(fused)}
    if theirs := torchvision_v2(case.crop):
        ways["torchvision.transforms.v2"] = lambda: draw(lambda i, m, _: theirs(i, m))
    found = race(ways, runs=runs)
    pairs = list(zip(found["stepwise"].output, found["fused"].output, strict=True))
    difference = np.mean(
        [np.abs(denormalise(a).astype(int) - denormalise(b)).mean() for (a, _), (b, _) in pairs]
    )
    labels = np.mean([(a == b).float().mean() for (_, a), (_, b) in pairs])
    for name, result in found.items():
        equal = {"mean_difference": difference, "equal_labels": labels} if name == "fused" else {}
        record.add("data", f"augment, {case.name}, {name}", **result.row(per=DRAWS), **equal)


def torchvision_v2(crop: int) -> Callable | None:
    """Return torchvision's version of the steps (own random numbers); None if not installed."""
    if installed("torchvision") is None:
        return None
    from torchvision import tv_tensors
    from torchvision.transforms import v2

    fill = {tv_tensors.Image: (124, 116, 104), tv_tensors.Mask: IGNORE}
    after = v2.Compose(
        [
            v2.RandomApply([v2.RandomRotation(ROTATE, v2.InterpolationMode.BILINEAR, fill=fill)]),
            v2.RandomApply([v2.GaussianBlur(5, 1.1)]),
            v2.RandomHorizontalFlip(),
            v2.RandomCrop((crop, crop), pad_if_needed=True, fill=fill),
            v2.ToDtype({tv_tensors.Image: torch.float32, "others": None}, scale=True),
            v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )

    def apply(image: np.ndarray, label: np.ndarray) -> Any:
        planes = torch.from_numpy(image).permute(2, 0, 1)
        scale = v2.ScaleJitter(image.shape[:2], SCALE, antialias=False)
        pair = tv_tensors.Image(planes), tv_tensors.Mask(torch.from_numpy(label))
        return after(*scale(*pair))

    return apply


def decoding(record: Record, case: Case, runs: int) -> None:
    """Measure the seconds to decode an image from memory with each installed library."""
    image, label = case.image(), case.label()
    for title, array, kind in (
        ("JPEG", image, {"format": "JPEG", "quality": 92}),
        ("PNG", image, {"format": "PNG"}),
        ("PNG label", label, {"format": "PNG"}),
    ):
        stream = io.BytesIO()
        Image.fromarray(array).save(stream, **kind)
        ways = decoders(stream.getvalue(), is_jpeg=title == "JPEG", is_label=array.ndim == 2)
        found = race(ways, runs=runs)
        first = found["Pillow"].output
        for name, result in found.items():
            row = result.row() | {"equal": bool(np.array_equal(result.output, first))}
            record.add("data", f"decode {title}, {case.name}, {name}", **row)


def decoders(content: bytes, *, is_jpeg: bool, is_label: bool) -> dict[str, Callable[[], Any]]:
    """Return library -> function that decodes a file's content to (H, W, 3) or (H, W)."""
    array = np.frombuffer(content, np.uint8)
    flag = cv2.IMREAD_UNCHANGED if is_label else cv2.IMREAD_COLOR_RGB
    ways: dict[str, Callable[[], Any]] = {
        "Pillow": lambda: np.asarray(Image.open(io.BytesIO(content))),
        "OpenCV": lambda: cv2.imdecode(array, flag),
    }
    if installed("torchvision"):
        from torchvision import io as theirs

        decode = theirs.decode_jpeg if is_jpeg else theirs.decode_png
        tensor = torch.from_numpy(array.copy())
        ways["torchvision.io"] = lambda: decode(tensor).permute(1, 2, 0).numpy().squeeze()
    if is_jpeg and (simplejpeg := installed("simplejpeg")):
        ways["simplejpeg"] = lambda: simplejpeg.decode_jpeg(content)
    if not is_jpeg and (pyspng := installed("pyspng")):
        ways["pyspng"] = lambda: pyspng.load(content).squeeze()
    return ways


def loading(record: Record, case: Case, runs: int, *, count: int = 8) -> None:
    """Measure loading from files to batches on one core, and the workers a GPU would need."""
    with tempfile.TemporaryDirectory() as folder:
        root, lines = Path(folder), []
        for i in range(count):
            Image.fromarray(case.image()).save(root / f"{i}.jpg", quality=92)
            Image.fromarray(case.label()).save(root / f"{i}.png")
            lines.append(f"{i}.jpg {i}.png\n")
        (root / "train.txt").write_text("".join(lines))
        cfg = Config(
            data_root=str(root),
            train_list=str(root / "train.txt"),
            classes=19,
            train_h=case.crop,
            train_w=case.crop,
            batch_size=count // 2,
            workers=0,
            manual_seed=1,
        )
        loaders = {
            way: build_loader(replace(cfg, augment=way), is_training=True)
            for way in ("stepwise", "fused")
        }
        found = race({way: partial(batches, loader) for way, loader in loaders.items()}, runs=runs)
        for way, result in found.items():
            row = result.row(per=count)
            record.add(
                "data",
                f"files to batches, {case.name}, {way}",
                **row,
                images_per_second_and_core=1 / row["seconds"],
                **{f"workers_for_16_images_in_{STEP * 1000:.0f}_ms": 16 * row["seconds"] / STEP},
            )


def batches(loader: Iterable) -> int:
    """Read all batches and return their number."""
    return len(list(loader))
