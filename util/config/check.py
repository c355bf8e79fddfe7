"""Checks that involve several keys; those of a single network are in model/ (check_network)."""

from util.config.keys import Config, full_name
from util.error import ConfigError

MAX_SIDE = 65536  # pixels, of a scaled test image


def check_labels(cfg: Config) -> None:
    """Raise ConfigError if ignore_label is also a class id."""
    if cfg.ignore_label < cfg.classes:
        raise ConfigError(
            f"TRAIN.ignore_label {cfg.ignore_label} is also a class id (DATA.classes "
            f"{cfg.classes}): choose a number of at least {cfg.classes}, usually 255 or 65535"
        )


def check_train(cfg: Config) -> None:
    """Raise ConfigError if the config is not valid for training."""
    check_labels(cfg)
    _need(cfg, "train_list", "save_path", *(["val_list"] if cfg.evaluate else []))
    if isinstance(cfg.class_weights, list) and len(cfg.class_weights) != cfg.classes:
        raise ConfigError(
            f"TRAIN.class_weights holds {len(cfg.class_weights)} numbers, but DATA.classes is "
            f"{cfg.classes}: one number per class, in the order of the ids"
        )
    if isinstance(cfg.class_weights, list) and not any(cfg.class_weights):
        raise ConfigError("TRAIN.class_weights are all 0: give at least one class a weight")
    for low, high in (("scale_min", "scale_max"), ("rotate_min", "rotate_max")):
        if getattr(cfg, low) > getattr(cfg, high):
            raise ConfigError(
                f"TRAIN.{low} {getattr(cfg, low)} is above TRAIN.{high} {getattr(cfg, high)}: "
                "swap them"
            )
    if cfg.compile and cfg.activation_checkpointing:
        raise ConfigError(
            "TRAIN.compile True does not work with TRAIN.activation_checkpointing True: set one of "
            "them to False"
        )
    if cfg.start_epoch >= cfg.epochs:
        raise ConfigError(
            f"TRAIN.start_epoch {cfg.start_epoch} is not below TRAIN.epochs {cfg.epochs}, so there "
            "is nothing to train: raise epochs or set start_epoch 0"
        )


def check_test(cfg: Config) -> None:
    """Raise ConfigError if the config is not valid for testing."""
    check_labels(cfg)
    if not cfg.scales:
        raise ConfigError("TEST.scales is empty: give at least one scale, such as '[1.0]'")
    if max(cfg.scales) * cfg.base_size > MAX_SIDE:
        raise ConfigError(
            f"TEST.scales {max(cfg.scales):g} x TEST.base_size {cfg.base_size} gives images with "
            f"sides above {MAX_SIDE} pixels: lower one of them"
        )
    if cfg.test_mode == "whole" and cfg.test_compile:
        raise ConfigError(
            "TEST.test_compile True needs windows of one size, but with TEST.test_mode whole each "
            "image has its own: set test_compile False or test_mode slide"
        )


def _need(cfg: Config, *names: str) -> None:
    for name in names:
        if not getattr(cfg, name):
            raise ConfigError(f"{full_name(name)} is empty: set it in the config or as an override")
