"""Loading a Config from a YAML file and `SECTION.key value` overrides."""

import os
from collections.abc import Collection, Sequence
from dataclasses import MISSING
from pathlib import Path
from typing import Any

import yaml

from util.config.keys import FIELDS, SECTION_OF, SECTIONS, TYPES, Config, full_name
from util.config.parse import Raw, convert, describe, mapping_of, read_mapping
from util.error import ConfigError, nearest, show

_OTHER_NAMES = {  # of common settings elsewhere
    "ignore_index": "ignore_label",
    "learning_rate": "base_lr",
    "max_epoch": "epochs",
    "max_epochs": "epochs",
    "port": "dist_url",
    "pretrained": "init_weight",
}
ROOT = Path(__file__).resolve().parents[2]  # base of relative paths in YAML files


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML file, apply `key value` overrides and check each value. Raises ConfigError.

    Paths in the file are relative to the project's folder, those in overrides to the current one.
    Checks that involve several keys are in check.py and model/.
    """
    document = read_mapping(_existing(Path(path)))
    return _config_of(document, overrides, source=str(path))


def restore_config(text: str, overrides: Sequence[str] = (), *, source: str) -> Config:
    """Load the text written by `dump_config` and apply overrides, like `load_config`."""
    return _config_of(mapping_of(text, source=source), overrides, source=source)


def stored_values(text: str, names: Collection[str], *, source: str) -> dict[str, Any]:
    """Parse only these keys, if present, in the text written by `dump_config` of any version."""
    sections = [part for part in mapping_of(text, source=source).values() if isinstance(part, dict)]
    found = {name: raw for part in sections for name, raw in part.items() if name in names}
    try:
        return {n: parse_value(n, raw, source=source, folder=ROOT) for n, raw in found.items()}
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from None


def _config_of(document: dict[str, Raw], overrides: Sequence[str], *, source: str) -> Config:
    values = {
        name: parse_value(name, value, source=source, folder=ROOT)
        for name, value in _values(document, source=source).items()
    }
    for name, text in _pairs(overrides):
        values[name] = parse_value(name, text, source="the command line", folder=Path.cwd())
    for name, f in FIELDS.items():
        if name in values:
            continue
        if f.default is MISSING and f.default_factory is MISSING:
            raise ConfigError(
                f"{full_name(name)} is missing in {source}: add it or pass it as an override"
            )
        if f.metadata["is_path"]:
            values[name] = _absolute(name, str(f.default), ROOT)
    return Config(**values)


def dump_config(cfg: Config) -> str:
    """Serialise a config as YAML; `load_config` restores an equal one."""
    sections: dict[str, dict] = {section: {} for section in SECTIONS}
    for name, section in SECTION_OF.items():
        value = getattr(cfg, name)
        if FIELDS[name].metadata["is_path"] and str(value).startswith(f"{ROOT}{os.sep}"):
            value = os.path.relpath(value, ROOT)
        sections[section][name] = value
    return yaml.safe_dump(sections, sort_keys=False, allow_unicode=True, width=1000)


def _existing(path: Path) -> Path:
    if not path.is_file():
        siblings = {p.stem: p for p in ROOT.glob("config/*/*.yaml")}
        near = nearest(path.stem, list(siblings))
        hint = "the recipes are in config/<dataset>/"
        if near:
            hint = f"nearest: {os.path.relpath(siblings[near[0]], ROOT)}"
        raise ConfigError(f"no config file {path}; {hint}")
    return path


def _values(document: dict[str, Raw], *, source: str) -> dict[str, Raw]:
    """Flatten the sections to key -> raw value, checking names and sections."""
    values: dict[str, Raw] = {}
    for section, content in document.items():
        if section not in SECTIONS:
            raise ConfigError(f"{source}: {_unknown_section(section)}")
        if not content:
            continue
        if not isinstance(content, dict):
            raise ConfigError(f"{source}: section {section} must hold `key: value` lines")
        for name, value in content.items():
            _check_name(section, name, source=source)
            values[name] = value
    return values


def _pairs(words: Sequence[str]) -> list[tuple[str, str]]:
    """Parse `SECTION.key value key value ...` to (key, text) pairs, checking names and sections."""
    pairs = []
    for word, text in zip(words[::2], words[1::2], strict=False):
        section, _, name = word.rpartition(".")
        if section and section not in SECTIONS:
            raise ConfigError(f"override '{show(word)}': {_unknown_section(section)}")
        _check_name(section, name, source="the command line")
        pairs.append((name, text))
    if len(words) % 2:
        name, is_assigned, text = words[-1].partition("=")
        hint = f": write `{show(name)} {show(text)}`" if is_assigned else ""
        raise ConfigError(
            "overrides come in pairs `SECTION.key value`, but "
            f"'{show(words[-1])}' has no value{hint}"
        )
    return pairs


def _unknown_section(section: str) -> str:
    near = nearest(section, list(SECTIONS))
    hint = f"nearest: {near[0]}" if near else f"sections are {', '.join(SECTIONS)}"
    return f"unknown section '{show(section)}'; {hint}"


def _check_name(section: str, name: str, *, source: str) -> None:
    """Raise ConfigError unless the key exists in that section ('': in any section)."""
    shown = show(f"{section}.{name}" if section else name)
    if name not in FIELDS:
        near = _nearest_key(name)
        hint = f"nearest: {full_name(near)}" if near else "config/README.md lists all keys"
        raise ConfigError(f"unknown key '{shown}' in {source}; {hint}")
    if section and section != SECTION_OF[name]:
        raise ConfigError(f"wrong section '{shown}' in {source}; the key is {full_name(name)}")


def _nearest_key(word: str) -> str:
    """Return the key that the user probably means, '' if none is close."""
    word = word[:100].lower()
    if word in _OTHER_NAMES:
        return _OTHER_NAMES[word]
    parts = {*word.split("_")}
    related = [n for n in FIELDS if parts <= {*n.split("_")} or {*n.split("_")} <= parts]
    found = [*nearest(word, list(FIELDS), cutoff=0.8), *related, *nearest(word, list(FIELDS))]
    return found[0] if found else ""


def parse_value(name: str, raw: Raw, *, source: str, folder: Path) -> Any:
    """Convert a raw YAML value or an override's text to the type of the key; check its limits."""
    kind = TYPES[name]
    try:
        value = convert(raw, kind)
    except ValueError as error:
        hint = f": {error}" if str(error) else ""
        raise ConfigError(
            f"{full_name(name)} must be {describe(kind)}, got '{show(raw)}' in {source}{hint}"
        ) from None
    items = [*value.keys(), *value.values()] if isinstance(value, dict) else value
    for item in items if isinstance(items, list) else [items]:
        if item is not None and (item != "" or kind is str):
            _check_limits(name, item)
    is_path = FIELDS[name].metadata["is_path"] and isinstance(value, str)
    return _absolute(name, value, folder) if is_path else value


def _check_limits(name: str, item: Any) -> None:
    limits = FIELDS[name].metadata
    is_text, must = isinstance(item, str), f"{full_name(name)} must be"
    has_choices = limits["choices"] and type(item) in map(type, limits["choices"])
    if has_choices and item not in limits["choices"]:
        options = [str(c) for c in limits["choices"]]
        near = nearest(item, options) if is_text else []
        hint = f"; nearest: {near[0]}" if near else ""
        raise ConfigError(f"{must} one of {', '.join(options)}, got {show(item)}{hint}")
    if is_text:
        return
    if limits["span"] and item < limits["span"][0]:
        raise ConfigError(f"{must} at least {limits['span'][0]}, got {item}")
    if limits["above"] and item <= limits["above"][0]:
        raise ConfigError(f"{must} above {limits['above'][0]}, got {item}")
    highest = (limits["span"] or limits["above"] or (0, item))[1]
    if item > highest:
        raise ConfigError(f"{must} at most {highest:.15g}, got {item}")


def _absolute(name: str, path: str, folder: Path) -> str:
    # Do not resolve symlinks: dataset/<name> may be one, and users know it by that name.
    if path == "" and FIELDS[name].default is MISSING:
        raise ConfigError(
            f"{full_name(name)} must not be empty: write a path, or . for the project's folder"
        )
    if path in ("", *FIELDS[name].metadata["words"]):
        return path
    if any(ord(character) < 32 for character in path):
        raise ConfigError(
            f"{full_name(name)} '{show(path)}' holds a control character: rename the file or folder"
        )
    try:
        return os.path.normpath(folder / Path(path).expanduser())
    except RuntimeError:
        raise ConfigError(
            f"{full_name(name)} '{show(path)}' starts with the home folder of a user who does not "
            "exist: write the full path"
        ) from None
