"""What a test's numbers depend on, in words: made from the config, kept beside the results."""

from pathlib import Path
from typing import Any

from util.config import NETWORK_KEYS, Config
from util.evaluation.result_folder import file_sha256
from util.inference import SlidingPredictor, window_starts


def prediction_protocol(
    cfg: Config, checkpoint: str, predictor: SlidingPredictor | None
) -> dict[str, Any]:
    """All that a prediction depends on besides its image.

    What is unknown of predictions made earlier (no predictor, no checkpoint) is None.
    """
    crop = (cfg.test_h, cfg.test_w)
    return {
        "checkpoint": checkpoint or None,
        "checkpoint_sha256": file_sha256(checkpoint) if checkpoint else None,
        "network": {name: getattr(cfg, name) for name in NETWORK_KEYS},
        "scales": cfg.scales,
        "base_size": cfg.base_size,
        "crop": list(crop),
        "stride": [window_starts(2 * side, side)[1] for side in crop],  # where the second begins
        "flip": True,
        "mode": cfg.test_mode,
        "precision": predictor and {"off": "float32"}.get(predictor.amp, predictor.amp),
    }


def scoring_protocol(cfg: Config, origin: dict[str, Any]) -> dict[str, Any]:
    """The rest that scores.json tells; `origin` is the content of environment.json."""
    list_path = cfg.test_list or cfg.val_list
    return {
        "list": list_path,
        "list_sha256": file_sha256(list_path),
        "has_prediction": cfg.has_prediction,
        # The number of threads of a CPU changes with that of the processes; no score does.
        "device": origin["device"].partition(",")[0],
        "versions": {name: origin[name] for name in ("python", "torch", "numpy", "opencv")},
        "git_commit": origin["git_commit"],
        "has_git_diff": origin["has_git_diff"],
    }


def result_folder(cfg: Config, checkpoint: str) -> Path:
    """TEST.save_folder, or <run folder>/result/epoch_<N>/<split>/<ss|ms>."""
    if cfg.save_folder:
        return Path(cfg.save_folder)
    name = Path(checkpoint).stem.removeprefix("train_")
    scales = "ss" if len(cfg.scales) == 1 else "ms"
    run = Path(cfg.save_path).parent if cfg.save_path else Path(checkpoint).parent.parent
    return run / "result" / name / cfg.split / scales
