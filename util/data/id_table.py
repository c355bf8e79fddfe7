"""Read the files for DATA.label_map: raw ids or colours -> class ids."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from util.error import ConfigError, read_text


def color_text(packed: int) -> str:
    """Format a colour r*65536 + g*256 + b as `R G B`."""
    return f"{packed >> 16} {packed >> 8 & 255} {packed & 255}"


def read_table(path: Path) -> tuple[dict[int, int], bool]:
    """Return ({raw id: class id}, whether raw ids are colours) of a file. Raises ConfigError."""
    if not path.is_file():
        raise ConfigError(
            f"DATA.label_map: no file {path}; set cityscapes, ade20k, a mapping such as "
            "{0: 0, 255: 1} or the path of a file"
        )
    text = read_text(path, ConfigError)
    rows = [line.split() for line in text.splitlines() if line.strip()]
    is_of_colors = bool(rows) and all(
        len(row) in (3, 4) and all(re.fullmatch(r"\d{1,5}", word) for word in row) for row in rows
    )
    table: dict[int, int] = {}
    for raws, class_id in _color_rows(rows, path) if is_of_colors else _id_rows(text, path):
        for raw in raws:
            if raw in table:
                what = f"colour {color_text(raw)}" if is_of_colors else f"id {raw}"
                raise ConfigError(
                    f"DATA.label_map {path} maps {what} twice, to classes {table[raw]} and "
                    f"{class_id}: remove one"
                )
            table[raw] = class_id
    return table, is_of_colors


def _color_rows(rows: list[list[str]], path: Path) -> Iterator[tuple[Sequence[int], int]]:
    for number, row in enumerate(rows):
        red, green, blue, *given = map(int, row)
        if max(red, green, blue) > 255:
            raise _not_a_table(path)
        yield [red << 16 | green << 8 | blue], given[0] if given else number


def _id_rows(text: str, path: Path) -> Iterator[tuple[Sequence[int], int]]:
    """Yield (raw ids, class id) of YAML or JSON text; their parsers would drop duplicate keys."""
    text = re.sub(r"#.*", "", text).strip()
    if text.startswith("{") and text.endswith("}"):
        text = text[1:-1]
    rows = [row.strip() for row in re.split(r"[,\n]", text) if row.strip()]
    for row in rows:
        pair = re.fullmatch(
            r"""(["']?)(-?\d{1,5})(?:-(\d{1,5}))?\1\s*:\s*["']?(\d{1,5})["']?""", row
        )
        if pair is None:
            raise _not_a_table(path)
        first, last = int(pair[2]), int(pair[3] or pair[2])
        if last < first:
            raise ConfigError(
                f"DATA.label_map {path} holds the range {first}-{last}, whose end is below its "
                "start: write the smaller id first"
            )
        yield range(first, last + 1), int(pair[4])
    if not rows:
        raise _not_a_table(path)


def _not_a_table(path: Path) -> ConfigError:
    return ConfigError(
        f"DATA.label_map {path} must hold a `raw id: class id` line per id, or an `R G B` or "
        "`R G B id` line per colour"
    )
