"""A result folder: predictions as images, each whole or not there, and what they were made with.

gray/ holds class ids, color/ and overlay/ show them, submission/ has the ids that a benchmark's
server wants; protocol.json names all that the predictions depend on.
"""

import json
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from util.data.image import is_whole_png, read_label, read_note, write_image, write_label
from util.error import ConfigError, DataError
from util.evaluation.submission import check_names
from util.evaluation.table import scores_content, table_lines
from util.palette import colorize, overlay

__all__ = ["ResultFolder", "check_names", "file_sha256", "scores_content", "table_lines"]

_FREE = ("checkpoint",)  # entries of a protocol that may differ: the same file elsewhere


@dataclass(frozen=True)
class ResultFolder:
    """The predictions of one protocol: names are paths without extension, below each kind's folder.

    `colors` (classes, 3) uint8; `export` (classes,) or None: the ids to save in submission/.
    """

    path: Path
    protocol: dict[str, Any]
    colors: np.ndarray
    export: np.ndarray | None = None

    def gray(self, name: str) -> Path:
        """The file of class ids."""
        return self.path / "gray" / f"{name}.png"

    @property
    def submission(self) -> Path:
        """The folder to pack and send."""
        return self.path / "submission"

    def write(self, name: str, image: np.ndarray, pred: np.ndarray) -> None:
        """Image (H, W, 3) and label map (H, W) -> color/, overlay/ and, when these are whole,
        gray/ with a note of the protocol and the image."""
        write_image(self.path / "color" / f"{name}.png", colorize(pred, self.colors))
        write_image(self.path / "overlay" / f"{name}.png", overlay(image, pred, self.colors))
        write_label(self.gray(name), pred, note=self._note(image))

    def write_submission(self, name: str, pred: np.ndarray) -> None:
        """submission/<last part of the name>.png, if there is an export."""
        if self.export is not None:
            write_label(self.submission / f"{Path(name).name}.png", self.export[pred])

    def read(self, name: str, size: tuple[int, int]) -> np.ndarray:
        """The label map (H, W) that was written. Raises DataError unless it can be one of an image
        of this size: the whole file, its height and width, ids of classes alone."""
        gray = self.gray(name)
        if not gray.is_file():
            raise DataError(
                f"no prediction {gray}: TEST.has_prediction scores existing ones; set it to False "
                "to make them, or TEST.save_folder to the folder that has them"
            )
        pred = read_label(gray)
        if pred.shape != size:
            raise DataError(
                f"prediction {gray} is {pred.shape[1]}x{pred.shape[0]}, its image is "
                f"{size[1]}x{size[0]} (width x height): make it again"
            )
        if pred.max(initial=0) >= len(self.colors) or pred.min(initial=0) < 0:
            raise DataError(
                f"prediction {gray} holds id {pred.max()}, but DATA.classes is "
                f"{len(self.colors)}: it is of other classes, make it again"
            )
        return pred

    def find(self, name: str, image: np.ndarray) -> np.ndarray | None:
        """The label map that an earlier run left of just this image by this protocol, if it is
        whole and so are the images that show it; else None."""
        try:
            pred, note = self.read(name, image.shape[:2]), read_note(self.gray(name))
        except DataError:
            return None
        files = (self.path / kind / f"{name}.png" for kind in ("gray", "color", "overlay"))
        return pred if note == self._note(image) and all(map(is_whole_png, files)) else None

    def claim(self, *, skip_existing: bool) -> None:
        """Write protocol.json. Raises ConfigError where predictions of another protocol would be
        taken for ones of this."""
        if skip_existing and any((self.path / "gray").rglob("*.png")):
            self._check_protocol()
        self.path.mkdir(parents=True, exist_ok=True)
        temporary = self._file.with_suffix(".part")
        temporary.write_text(json.dumps(self.protocol, indent=2) + "\n", encoding="utf-8")
        temporary.replace(self._file)

    def found_protocol(self) -> dict[str, Any]:
        """What protocol.json holds, {} where there is none or a damaged one."""
        try:
            return json.loads(self._file.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return {}

    def _check_protocol(self) -> None:
        before = self.found_protocol()
        cure = (
            "make all anew with TEST.skip_existing False, or keep them and name another "
            "TEST.save_folder"
        )
        if not before:
            raise ConfigError(
                f"TEST.skip_existing: {self.path} holds predictions, but no readable protocol.json "
                f"that says how they were made; {cure}"
            )
        mine = _plain(self.protocol)
        differing = [
            f"{name} (there {_short(before.get(name))}, now {_short(mine.get(name))})"
            for name in {**mine, **before}
            if name not in _FREE and before.get(name) != mine.get(name)
        ]
        if differing:
            raise ConfigError(
                f"TEST.skip_existing: the predictions in {self.path} were made with another "
                f"{', '.join(differing)}; {cure}"
            )

    @property
    def _file(self) -> Path:
        return self.path / "protocol.json"

    def _note(self, image: np.ndarray) -> str:
        """A fingerprint of what a prediction's files depend on: protocol, colours and image. A
        folder may hold those of several lists, or of a run with another protocol that was stopped.
        """
        kept = {name: value for name, value in self.protocol.items() if name not in _FREE}
        digest = sha256(json.dumps([kept, image.shape], sort_keys=True).encode())
        digest.update(self.colors.tobytes())
        digest.update(np.ascontiguousarray(image))
        return digest.hexdigest()


def file_sha256(path: str | Path) -> str:
    """Of a file's bytes, in hexadecimal."""
    return sha256(Path(path).read_bytes()).hexdigest()


def _plain(content: dict[str, Any]) -> dict[str, Any]:
    """As it comes back from a JSON file: tuples are lists."""
    return json.loads(json.dumps(content))


def _short(value: Any) -> str:
    """A value in a sentence; of a mapping or a hash its beginning."""
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 40 else f"{text[:12]}..."
