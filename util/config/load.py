"""Configuration: typed keys, filled from YAML and from `SECTION.key value` pairs.

Access is flat (`cfg.base_lr`) and read-only.
"""

import argparse
import os
from collections.abc import Sequence
from dataclasses import MISSING
from pathlib import Path
from typing import Any

import yaml

from util.config.keys import FIELDS, SECTIONS, TYPES, Config, full_name
from util.config.parse import convert, describe, read_mapping
from util.error import ConfigError, nearest

ROOT = Path(__file__).resolve().parents[2]  # relative paths in a YAML file start here


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML file, apply `key value` pairs, check every value on its own.

    Relative paths in the file start at the project's folder, those in overrides at the current one.
    Raises ConfigError. check.py judges the combination of values.
    """
    values = {
        name: _parse(name, value, source=str(path), folder=ROOT)
        for name, value in _read_yaml(Path(path)).items()
    }
    for name, text in _pairs(overrides):
        values[name] = _parse(name, text, source="the command line", folder=Path.cwd())
    for name, f in FIELDS.items():
        if name in values:
            continue
        if f.default is MISSING and f.default_factory is MISSING:
            raise ConfigError(
                f"{full_name(name)} is missing in {path}: add it or give it as override"
            )
        if f.metadata["is_path"]:
            values[name] = _absolute(f.default, ROOT, f.metadata["words"])
    return Config(**values)


def config_parser(doc: str) -> argparse.ArgumentParser:
    """The command line that all tools share: --config FILE, then overrides; `doc` is the tool's."""
    parser = argparse.ArgumentParser(description=doc)
    add_config_arguments(parser)
    return parser


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a parser the arguments of `config_parser`."""
    parser.add_argument("--config", required=True, help="YAML file, config/<dataset>/<name>.yaml")
    parser.add_argument(
        "overrides",
        nargs=argparse.REMAINDER,
        metavar="SECTION.key value",
        help="pairs that replace values of the file; relative paths start at the current folder",
    )


def dump_config(cfg: Config) -> str:
    """The config as YAML that `load_config` reads back to an equal one."""
    sections: dict[str, dict] = {section: {} for section in SECTIONS}
    for name, f in FIELDS.items():
        value = getattr(cfg, name)
        if f.metadata["is_path"] and str(value).startswith(f"{ROOT}{os.sep}"):
            value = os.path.relpath(value, ROOT)
        sections[f.metadata["section"]][name] = value
    return yaml.safe_dump(sections, sort_keys=False, allow_unicode=True, width=1000)


def _read_yaml(path: Path) -> dict[str, Any]:
    """Key -> raw value of all sections of a file, names and sections checked."""
    if not path.is_file():
        siblings = [str(p) for p in sorted(ROOT.glob("config/*/*.yaml"))]
        names = nearest(path.stem, [Path(s).stem for s in siblings])
        hint = "".join(
            f"; nearest: {os.path.relpath(s, ROOT)}" for s in siblings if Path(s).stem in names
        )
        raise ConfigError(f"no config file {path}{hint}")
    document = read_mapping(path)
    values = {}
    for section, content in document.items():
        if section not in SECTIONS:
            raise ConfigError(f"{path}: {_unknown_section(str(section))}")
        if content is not None and not isinstance(content, dict):
            raise ConfigError(f"{path}: section {section} must hold `key: value` lines")
        for name, value in (content or {}).items():
            _check_name(section, str(name), source=str(path))
            values[name] = value
    return values


def _pairs(words: Sequence[str]) -> list[tuple[str, str]]:
    """`SECTION.key value key value ...` -> (key, text) pairs, names and sections checked."""
    if len(words) % 2:
        raise ConfigError(
            f"overrides come in pairs `SECTION.key value`, but '{words[-1]}' stands alone"
        )
    pairs = []
    for word, text in zip(words[::2], words[1::2], strict=True):
        section, _, name = word.rpartition(".")
        if section and section not in SECTIONS:
            raise ConfigError(f"override '{word}': {_unknown_section(section)}")
        _check_name(section, name, source="the command line")
        pairs.append((name, text))
    return pairs


def _unknown_section(section: str) -> str:
    near = nearest(section, list(SECTIONS))
    hint = f"nearest: {near[0]}" if near else f"sections are {', '.join(SECTIONS)}"
    return f"unknown section '{section}'; {hint}"


def _check_name(section: str, name: str, source: str) -> None:
    """Refuse an unknown key, and a known one in the wrong section ('' = section not given)."""
    shown = f"{section}.{name}" if section else name
    if name not in FIELDS:
        near = nearest(name, list(FIELDS))
        hint = f"nearest: {full_name(near[0])}" if near else "FAQ.md lists all keys"
        raise ConfigError(f"unknown key '{shown}' in {source}; {hint}")
    if section and section != FIELDS[name].metadata["section"]:
        raise ConfigError(f"wrong section '{shown}' in {source}; the key is {full_name(name)}")


def _parse(name: str, raw: Any, *, source: str, folder: Path) -> Any:
    """A raw YAML value or an override's text as the key's type, within its limits."""
    kind, limits = TYPES[name], FIELDS[name].metadata
    try:
        value = convert(raw, kind)
    except ValueError:
        wanted = describe(kind)
        raise ConfigError(f"{full_name(name)} must be {wanted}, got '{raw}' in {source}") from None
    for item in value if isinstance(value, list) else [value]:
        if item is None or isinstance(item, dict) or (item == "" and kind is not str):
            continue
        if isinstance(item, str) and not limits["choices"]:
            continue
        if limits["choices"] and item not in limits["choices"]:
            options = [str(c) for c in limits["choices"]]
            near = nearest(item, options) if isinstance(item, str) else []
            hint = f"; nearest: {near[0]}" if near else ""
            raise ConfigError(
                f"{full_name(name)} must be one of {', '.join(options)}, got {item}{hint}"
            )
        if limits["minimum"] is not None and item < limits["minimum"]:
            raise ConfigError(f"{full_name(name)} must be at least {limits['minimum']}, got {item}")
        if limits["above"] is not None and item <= limits["above"]:
            raise ConfigError(f"{full_name(name)} must be above {limits['above']}, got {item}")
    is_path = limits["is_path"] and isinstance(value, str)
    return _absolute(value, folder, limits["words"]) if is_path else value


def _absolute(path: str, folder: Path, words: tuple[str, ...]) -> str:
    # Links stay as they are: dataset/<name> is one, and the user knows it by that name.
    if path in ("", *words):
        return path
    return os.path.normpath(folder / Path(path).expanduser())
