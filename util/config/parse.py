"""Raw YAML values and words of the command line -> typed values; knows no key by name."""

import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from util.error import ConfigError


class UniqueKeyLoader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice, where YAML would silently keep the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        names = [self.construct_object(k, deep=True) for k, _ in node.value]
        for name in names:
            if names.count(name) > 1:
                line = node.start_mark.line + 1
                raise ConfigError(
                    f"{node.start_mark.name}: key '{name}' stands twice in the section that begins "
                    f"at line {line}: remove one"
                )
        return super().construct_mapping(node, deep)


def read_mapping(path: Path) -> dict[str, Any]:
    """The mapping that a YAML file holds. Raises ConfigError for anything else."""
    try:
        with path.open(encoding="utf-8") as file:
            document = yaml.load(file, UniqueKeyLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        place = "" if mark is None else f" at line {mark.line + 1}, column {mark.column + 1}"
        problem = getattr(error, "problem", None) or "not a text file"
        raise ConfigError(f"{path} is not valid YAML{place}: {problem}") from None
    if not isinstance(document, dict):
        raise ConfigError(f"{path} must hold sections of `key: value` lines")
    return document


def convert(raw: Any, kind: Any) -> Any:
    """`raw` (a YAML value or text) as `kind`, without loss. Raises ValueError.

    `kind` is bool, int, float, str, list of these, one of these `| None`, or
    dict[int, int] or list[float] `| str`.
    """
    if isinstance(kind, types.UnionType) and str in typing.get_args(kind):
        return _collection_or_text(raw, typing.get_args(kind)[0])
    if isinstance(kind, types.UnionType):
        if raw is None or (isinstance(raw, str) and raw.strip().lower() in _NOTHING):
            return None
        kind = next(k for k in typing.get_args(kind) if k is not type(None))
    if kind is str:
        if raw is False:  # YAML 1.1 reads a bare `off` as a truth value
            return "off"
        if isinstance(raw, (dict, list, bool)):
            raise ValueError
        return "" if raw is None else str(raw)
    value = _as_yaml(raw) if isinstance(raw, str) else raw
    if typing.get_origin(kind) is list:
        items = value if isinstance(value, list) else [value]
        return [_number(item, typing.get_args(kind)[0]) for item in items]
    return _number(value, kind)


def _collection_or_text(raw: Any, kind: Any) -> Any:
    value = _as_yaml(raw) if isinstance(raw, str) else raw
    if not isinstance(value, (dict, list)):
        return convert(raw, str)
    if isinstance(value, dict) != (typing.get_origin(kind) is dict):
        raise ValueError
    if isinstance(value, dict):
        return {_number(k, int): _number(v, int) for k, v in value.items()}
    return convert(value, kind)


def describe(kind: Any) -> str:
    """What a value of `kind` looks like, for messages."""
    return _KIND_WORDS[kind]


_NOTHING = ("", "none", "null", "~")


def _as_yaml(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def _number(value: Any, kind: type) -> bool | int | float:
    """Convert without loss or raise ValueError. YAML reads `1e-4` as text: float() repairs that."""
    if kind is bool:
        if isinstance(value, bool):
            return value
        raise ValueError
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError
    number = float(value)
    if number != number or number in (float("inf"), float("-inf")):
        raise ValueError
    if kind is float:
        return number
    if number != int(number):
        raise ValueError
    return int(value) if isinstance(value, int) else int(number)


_KIND_WORDS: Mapping[Any, str] = {
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
