"""benchmark gpu, part env: hardware ceilings, the tests marked gpu, the golden numbers."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from model import ARCHS
from util.config.load import ROOT
from util.extra.benchmark import machine
from util.extra.benchmark.parts import guarded
from util.extra.benchmark.record import Deadline, Record
from util.extra.golden import batch, fill, load_cases, load_values

GOLDEN = ("pspnet50", "psanet50")
VERIFIED = [*GOLDEN, "test_single_scale", "test_multi_scale", "metric"]


def run(record: Record, deadline: Deadline, *, device: torch.device, tiny: bool, log: Path) -> None:
    """Add the rows; the output of pytest and tool/verify.py is stored next to `log`."""
    rates(record, device, tiny=tiny)
    for name in GOLDEN[: 1 if tiny else None]:
        title = f"golden logits of {name}, deviation in units of their spread"
        guarded(record, "env", title, partial(deviations, name, device))
    tests = ["tests/test_metric.py"] if tiny else ["-m", "gpu", "tests"]
    cases = ["metric"] if tiny else VERIFIED
    verify = [str(ROOT / "tool/verify.py"), "--device", device.type, *cases]
    commands = {"pytest -m gpu": ["-m", "pytest", "-q", *tests], "tool/verify.py": verify}
    with ThreadPoolExecutor() as pool:  # in parallel: neither is timed
        for name, words in commands.items():
            pool.submit(
                command, record, deadline, name, words, log.with_name(f"{Path(name).stem}.log")
            )


def rates(record: Record, device: torch.device, *, tiny: bool) -> None:
    """Add the rows of the device's ceilings."""
    side, maps, size = (128, 8, 2**20) if tiny else (8192, 60, 2**31)
    for kind in machine.DTYPES:

        def work(kind: str = kind) -> dict[str, float]:
            return {
                "product_tflop_per_second": machine.product_rate(kind, device, side=side),
                "convolution_tflop_per_second": machine.convolution_rate(kind, device, side=maps),
            }

        guarded(record, "env", f"{kind}, ceilings", work)
    copies = {"copy_gb_per_second": machine.copy_rate(device, size=size)}
    if device.type == "cuda":
        copies["upload_gb_per_second"] = machine.upload_rate(device)
    record.add("env", "memory", **copies)


@torch.no_grad()
def deviations(name: str, device: torch.device) -> dict[str, Any]:
    """Return the deviation of logits from the stored ones, per precision."""
    case, values = load_cases()[name], load_values()
    arguments = dict(case["variant"])
    build: Any = ARCHS[arguments.pop("arch")]
    network = fill(build(**arguments, dropout=0.0), case["salt"]).to(device).eval()
    n, _, height, width = case["input"]
    sizes = (n, height, width), tuple(case["label"][1:]), case["variant"]["classes"]
    image = batch(case["salt"], *sizes)[0].to(device)
    stride, spread = int(values[f"{name}/logits_stride"]), values[f"{name}/logits_mean_std"][1]
    found = {}
    for kind, dtype in machine.DTYPES.items():
        mixed = torch.autocast(device.type, dtype, enabled=dtype != torch.float32)
        with machine.arithmetic(kind), mixed:
            logits = network(image).logits.float()[..., ::stride, ::stride].cpu().numpy()
        found[kind] = float(np.abs(logits - values[f"{name}/logits"]).max() / spread)
    return found


def command(record: Record, deadline: Deadline, name: str, words: list[str], log: Path) -> None:
    """Run a Python command of this project; add a row with its exit code and last lines."""

    def work() -> dict[str, Any]:
        limit = max(5.0, deadline.left())
        try:
            done = subprocess.run(
                [sys.executable, *words], cwd=ROOT, capture_output=True, text=True, timeout=limit
            )
            output, end = done.stdout + done.stderr, f"exit code {done.returncode}"
        except subprocess.TimeoutExpired as error:
            output = (error.stdout or b"").decode(errors="replace")
            end = f"stopped after {limit:.0f} s"
        with log.open("a", encoding="utf-8") as file:
            file.write(f"== {name}\n{output}\n")
        lines = [line for line in output.splitlines() if line.strip()]
        misses = [line for line in lines if line.startswith(("FAILED", "ERROR")) or "MISS" in line]
        return {"end": end, "note": " / ".join([*misses[:10], *lines[-1:]])}

    guarded(record, "env", name, work)
