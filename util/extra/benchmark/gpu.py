"""benchmark gpu: all measurements that need a GPU, in a few minutes."""

import tarfile
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from util.config import Config, load_config
from util.config.load import ROOT
from util.error import ConfigError
from util.extra.benchmark import gpu_augment, gpu_camvid, gpu_env, gpu_resume, gpu_step, gpu_test
from util.extra.benchmark.machine import about
from util.extra.benchmark.parts import Part, Work, apart, run_parts
from util.extra.benchmark.record import Record

SHARES = {
    "env": 85,
    "step": 125,
    "test": 80,
    "resume": 50,
    "augment": 90,
    "camvid": 190,
}  # weights for dividing the time


@dataclass(frozen=True)
class Settings:
    """Command-line settings."""

    parts: Sequence[str]
    budget: float  # seconds
    output: Path  # folder
    data_root: Path  # of CamVid
    weights: str  # of the ImageNet ResNet50
    weights_18: str  # of the ResNet18
    tiny: bool  # a dry run of everything, on a CPU


def benchmark_gpu(settings: Settings, command: str) -> str:
    """Run the requested parts and return the tables as Markdown.

    Rows are appended to gpu.jsonl in the output folder; gpu.json, gpu.md and gpu_files.tar.gz
    (logs, curves, reports) are written after every part.
    """
    device = torch.device("cpu" if settings.tiny else "cuda")
    head = apart(partial(about, device, command))
    if head is None:
        raise ConfigError(
            "benchmark gpu needs a working CUDA device: --tiny runs all parts on a CPU with small "
            "sizes"
        )
    assert isinstance(head, dict)
    record = Record(settings.output / "gpu")
    record.start()
    print("\n".join(f"{name}: {value}" for name, value in head.items()), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        work, kept = Path(folder), Path(folder) / "kept"
        kept.mkdir()

        def after() -> None:
            record.write(head)
            with tarfile.open(settings.output / "gpu_files.tar.gz", "w:gz") as archive:
                archive.add(kept, "gpu_files")

        works = _works(settings, device, work, kept)
        parts = [Part(name, works[name], share) for name, share in SHARES.items()]
        parts = [part for part in parts if part.name in settings.parts]
        run_parts(parts, record, seconds=settings.budget, after=after)
    return record.write(head)


def _works(settings: Settings, device: torch.device, work: Path, kept: Path) -> dict[str, Work]:
    tiny = settings.tiny
    ade, city = (_config(name, tiny) for name in ("ade20k_pspnet50", "cityscapes_pspnet50"))
    city = replace(city, batch_size=min(8, city.batch_size))
    steps = {
        "PSPNet50 473, batch 16": ade,
        "PSANet50 465, batch 16": _config("ade20k_psanet50", tiny),
        "PSPNet101 473, batch 16": _config("ade20k_pspnet101", tiny),
        "PSPNet50 713, batch 8, 19 classes": city,
    }
    single, six = gpu_test.SINGLE, gpu_test.SIX
    cases: tuple[gpu_test.Case, ...] = (
        gpu_test.Case("PSPNet50 473, 150 classes, 384x512", ade, (384, 512), (single, six)),
        gpu_test.Case("PSPNet50 713, 19 classes, 1024x2048", city, (1024, 2048), (single,)),
    )
    modes: tuple[gpu_step.Mode, ...] = gpu_step.ALL_MODES
    if tiny:
        steps, modes = dict(list(steps.items())[:2]), gpu_step.FEW_MODES
        cases = (gpu_test.Case("tiny", ade, (33, 48), (single,), compiles=False, likely=0),)
    camvid = gpu_camvid.Setup(
        recipe=ROOT / "config/camvid/camvid_pspnet50.yaml",
        data_root=settings.data_root,
        weights=settings.weights,
        work=work,
        log=kept / "camvid.log",
        kept=kept,
        test_seconds=20 if tiny else 45,
        max_epochs=2 if tiny else 300,
        keys=gpu_camvid.TINY if tiny else gpu_camvid.FULL,
    )
    small = replace(
        camvid,
        recipe=ROOT / "config/camvid/camvid_pspnet18.yaml",
        weights=settings.weights_18,
        keys=gpu_camvid.TINY if tiny else (("amp", "bf16"), ("test_amp", "bf16"), ("workers", 2)),
    )
    seeds, epochs = ((1,), 1) if tiny else ((1, 2, 3), 24)
    size = gpu_resume.TINY if tiny else gpu_resume.FULL
    return {
        "env": partial(gpu_env.run, device=device, tiny=tiny, log=kept / "env.log"),
        "step": partial(gpu_step.run, configs=steps, device=device, modes=modes),
        "test": partial(gpu_test.run, cases=cases, device=device),
        "resume": partial(gpu_resume.run, work=work, log=kept / "resume.log", size=size),
        "augment": partial(gpu_augment.run, setup=small, seeds=seeds, epochs=epochs),
        "camvid": partial(gpu_camvid.run, setup=camvid),
    }


def _config(name: str, tiny: bool) -> Config:
    """Load the config of a recipe; for a dry run a small one of the same kind."""
    cfg = load_config(ROOT / f"config/{name.split('_')[0]}/{name}.yaml")
    if not tiny:
        return cfg
    sides: dict[str, Any] = dict.fromkeys(("train_h", "train_w", "test_h", "test_w"), 33)
    return replace(
        cfg, **sides, base_size=48, layers=18, classes=3, batch_size=2, mask_h=None, mask_w=None
    )
