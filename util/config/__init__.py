"""Configuration: typed keys, filled from YAML and from `SECTION.key value` pairs."""

from util.config.check import check_labels, check_test, check_train
from util.config.keys import Config
from util.config.load import (
    ROOT,
    add_config_arguments,
    config_parser,
    dump_config,
    load_config,
)

__all__ = [
    "ROOT",
    "Config",
    "add_config_arguments",
    "check_labels",
    "check_test",
    "check_train",
    "config_parser",
    "dump_config",
    "load_config",
]
