"""Configuration: typed keys, filled from YAML and from `SECTION.key value` pairs."""

from util.config.check import check_labels, check_test, check_train
from util.config.command_line import ConfigParser, config_parser
from util.config.keys import NETWORK_KEYS, Config, full_name
from util.config.load import ROOT, dump_config, load_config, restore_config, stored_values

__all__ = [
    "NETWORK_KEYS",
    "ROOT",
    "Config",
    "ConfigParser",
    "check_labels",
    "check_test",
    "check_train",
    "config_parser",
    "dump_config",
    "full_name",
    "load_config",
    "restore_config",
    "stored_values",
]
