"""Parsing YAML and command-line text into typed values, independent of the keys.

Scalars stay text until the type of their key is known, so that `no`, `010`, `1e-4` and `2026-13-45`
are interpreted by that type rather than by YAML's guess.
"""

import re
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from util.error import ConfigError, read_text, show

MAX_BYTES = 2**18
MAX_DEPTH = 5
MAX_DIGITS = 40

Raw = str | list | dict  # text, or (nested) lists and mappings of text


def read_mapping(path: Path) -> dict[str, Raw]:
    """Read a YAML file that holds a mapping. Raises ConfigError for anything else."""
    if path.stat().st_size > MAX_BYTES:
        raise ConfigError(
            f"{path} has {path.stat().st_size} bytes, more than the limit of {MAX_BYTES} for a "
            "config: give a file such as config/ade20k/ade20k_pspnet50.yaml"
        )
    return mapping_of(read_text(path, ConfigError), source=str(path))


def mapping_of(text: str, *, source: str) -> dict[str, Raw]:
    """Parse YAML text that holds a mapping. Raises ConfigError for anything else."""
    try:
        document = parse_yaml(text)
    except YamlSyntaxError as error:
        why = error.why or "not valid YAML"
        raise ConfigError(f"{source}{error.place}: {why}") from None
    if not isinstance(document, dict):
        raise ConfigError(f"{source} must hold sections of `key: value` lines")
    return document


class YamlSyntaxError(ValueError):
    """Invalid YAML: `place`, such as ` at line 3, column 1`, and `why`. `mark` may be None."""

    def __init__(self, mark: Any, why: str) -> None:
        self.place = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        self.why = why
        super().__init__(why)


def parse_yaml(text: str) -> Raw:
    """Parse YAML to text, lists and mappings of text. Raises YamlSyntaxError.

    Also rejects duplicate keys (YAML would silently keep the last one), tags, anchors and aliases
    (a few bytes can expand to gigabytes), and deep nesting.
    """
    try:
        _check_events(text)
        return yaml.load(text, _TextLoader)
    except yaml.reader.ReaderError as error:
        raise YamlSyntaxError(
            None, f"the character U+{error.character:04X} is not allowed"
        ) from None
    except yaml.MarkedYAMLError as error:
        problem = str(error.problem).replace("found unhashable key", "a key must be plain text")
        raise YamlSyntaxError(error.problem_mark, f"not valid YAML ({problem})") from None


class _TextLoader(yaml.BaseLoader):
    """Loads scalars as text and rejects duplicate keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    why = f"'{show(key.value)}' is given twice, remove one"
                    raise YamlSyntaxError(key.start_mark, why)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def _check_events(text: str) -> None:
    depth = 0
    for event in yaml.parse(text, yaml.BaseLoader):
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise YamlSyntaxError(event.start_mark, "nested too deeply")
        if isinstance(event, yaml.ScalarEvent) and (event.value, event.style) == ("<<", None):
            raise YamlSyntaxError(
                event.start_mark, "merge keys (<<) are not supported, write the lines out"
            )
        if getattr(event, "anchor", None):
            what = "anchors and aliases (&, *) are not supported, write the value out"
            raise YamlSyntaxError(event.start_mark, what)
        if tag := getattr(event, "tag", None):
            what = f"tags ('{show(tag)}') are not supported, write the plain value"
            raise YamlSyntaxError(event.start_mark, what)


def convert(raw: Raw, kind: Any) -> Any:
    """Convert `raw` to `kind` without loss. Raises ValueError, with a hint if possible.

    `kind` is bool, int, float, str, list of these, one of these `| None`, or
    dict[int, int] or list[float] `| str`.
    """
    if isinstance(kind, types.UnionType):
        first = typing.get_args(kind)[0]
        if str in typing.get_args(kind):
            kind = first if isinstance(_collection(raw), (list, dict)) else str
        elif isinstance(raw, str) and raw.strip().lower() in _NOTHING:
            return None
        else:
            kind = first
    if kind is str:
        if not isinstance(raw, str):
            raise ValueError
        return "" if raw.lower() in _NOTHING else raw
    if typing.get_origin(kind) is dict:
        return _ids(_collection(raw))
    if typing.get_origin(kind) is list:
        items = _collection(raw)
        items = items if isinstance(items, list) else [items]
        return [_scalar(item, typing.get_args(kind)[0]) for item in items]
    return _scalar(raw, kind)


def _collection(raw: Raw) -> Raw:
    """Parse text from the command line that holds a list or mapping; return other text as is."""
    if not isinstance(raw, str) or not raw.lstrip().startswith(("[", "{")):
        return raw
    if len(raw) > MAX_BYTES:
        raise ValueError(f"more than {MAX_BYTES} characters")
    return parse_yaml(raw)


def _ids(raw: Raw) -> dict[int, int]:
    if not isinstance(raw, dict):
        raise ValueError
    table = {}
    for key, value in raw.items():
        number = int(_scalar(key, int))
        if number in table:
            raise ValueError(f"{number} is given twice")
        table[number] = int(_scalar(value, int))
    return table


def _scalar(raw: Raw, kind: type) -> bool | int | float:
    if not isinstance(raw, str):
        raise ValueError
    text = raw.strip()
    if kind is bool:
        if text.lower() not in _TRUTH:
            raise ValueError
        return _TRUTH[text.lower()]
    if len(text) > MAX_DIGITS:
        raise ValueError(f"numbers have at most {MAX_DIGITS} characters")
    if re.match(r"[+-]?0\d", text):  # 8 or 10?
        raise ValueError("write it without leading zeros")
    if kind is int and re.fullmatch(r"[+-]?\d+", text, re.ASCII):
        return int(text)
    try:
        number = float(text)
        whole = int(number)
    except (ValueError, OverflowError):  # text; infinity
        raise ValueError from None
    if kind is float:
        return number
    if number != whole:
        raise ValueError
    return whole


def describe(kind: Any) -> str:
    """Describe valid values of `kind` for messages."""
    return _KINDS[kind]


_NOTHING = ("", "none", "null", "~")
_TRUTH = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_KINDS: Mapping[Any, str] = {
    bool: "True or False",
    int: "a whole number",
    float: "a number",
    str: "text",
    list[int]: "a list of whole numbers such as [0, 1]",
    list[float]: "a list of numbers such as [0.5, 1.0]",
    dict[int, int] | str: "a name, a file or a mapping such as {0: 0, 255: 1}",
    list[float] | str: "a list of numbers such as [0.5, 1.0], `median` or a file",
    int | None: "a whole number or empty",
    float | None: "a number or empty",
    bool | None: "True, False or empty",
}
