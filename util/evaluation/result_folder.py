"""A result folder: the predictions of one test as images, each whole or not there.

gray/ holds class ids, color/ and overlay/ show them, submission/ has the ids that a benchmark's
server wants; protocol.json names all that the predictions depend on. A folder has one protocol.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from util.data.file import write_text
from util.data.image import read_label, read_note, write_image, write_label
from util.error import ConfigError, DataError
from util.evaluation.output import check_targets, make_folder
from util.palette import colorize, overlay

# Entries of a protocol that may differ: the same file elsewhere; what fitted into memory.
_FREE = ("checkpoint", "batch_windows")
_FILES = (
    *("config.yaml", "environment.json", "git.diff"),
    *("scores.json", "confusion.npz", "report.html"),
)
_OTHER = "choose another TEST.save_folder"


@dataclass(frozen=True)
class ResultFolder:
    """The predictions of one protocol: names are paths without extension, below each kind's folder.

    `colors` (classes, 3) uint8; `export` (classes,) or None: the ids to save in submission/.
    """

    path: Path
    protocol: dict[str, Any]
    colors: np.ndarray
    export: np.ndarray | None = None

    def open(self, names: Sequence[str], inputs: Iterable[Path]) -> None:
        """Make the folder ready for predictions of these names. Raises ConfigError where it holds
        those of another protocol or files of the user's, among them `inputs`."""
        make_folder(self.path, key="TEST.save_folder")
        before = read_protocol(self.path)
        if before and self._has_predictions():
            self._check_same(before)
        for name in names:
            if PurePath(name).is_absolute() or ".." in PurePath(name).parts:
                raise ConfigError(f"result {name} would lie outside of {self.path}: rename it")
        targets = [path for name in names for path in self._targets(name)]
        self._check_targets(before, targets, inputs)
        if not before or not self._has_predictions():
            self._write_protocol()

    def open_existing(self, names: Sequence[str]) -> None:
        """Make the folder ready for the scores of predictions that it holds. Raises ConfigError."""
        if not self.path.is_dir():
            raise ConfigError(
                f"TEST.has_prediction: no predictions, there is no folder {self.path}: set "
                "TEST.save_folder to the one with gray/, or TEST.has_prediction False to predict"
            )
        before = read_protocol(self.path)
        self._check_targets(before, [path for n in names for path in self._targets(n)[3:]], [])
        if not before:
            self._write_protocol()

    def gray(self, name: str) -> Path:
        """The file of class ids."""
        return self.path / "gray" / f"{name}.png"

    @property
    def submission(self) -> Path:
        """The folder with the submission files."""
        return self.path / "submission"

    def write(self, name: str, image: np.ndarray, pred: np.ndarray) -> None:
        """Image (H, W, 3) and label map (H, W) -> color/, overlay/ and, last, gray/ with a note of
        the protocol and the image."""
        gray, color, overlaid = self._targets(name)[:3]
        write_image(color, colorize(pred, self.colors))
        write_image(overlaid, overlay(image, pred, self.colors))
        self.write_submission(name, pred)
        write_label(gray, pred, note=self._note(image))

    def write_submission(self, name: str, pred: np.ndarray) -> None:
        """submission/<last part of the name>.png, if there is an export."""
        if self.export is not None:
            write_label(self._targets(name)[3], self.export[pred])

    def find(self, name: str, image: np.ndarray) -> np.ndarray | None:
        """The label map that an earlier run left of just this image by this protocol, or None."""
        try:
            if read_note(self.gray(name)) == self._note(image):
                return self._read(name, image.shape[:2])
        except DataError:  # not there, or damaged
            pass
        return None

    def read(self, name: str, image: np.ndarray) -> np.ndarray:
        """The label map (H, W) of an image that is there. Raises DataError where it is not of this
        image, nor, if the folder's protocol is known, made by that."""
        gray = self.gray(name)
        if not gray.is_file():
            raise DataError(
                f"no prediction {gray}: TEST.has_prediction scores existing ones; set it to False "
                "to make them, or TEST.save_folder to the folder that has them"
            )
        pred = self._read(name, image.shape[:2])
        if self.protocol["checkpoint_sha256"] and read_note(gray) != self._note(image):
            raise DataError(
                f"prediction {gray} was not made as {self.path / 'protocol.json'} says, or of "
                f"another image: predict again with TEST.has_prediction False and {_OTHER[7:]}"
            )
        return pred

    def _read(self, name: str, size: tuple[int, int]) -> np.ndarray:
        gray = self.gray(name)
        pred = read_label(gray)
        if pred.shape != size:
            raise DataError(
                f"prediction {gray} is {pred.shape[1]}x{pred.shape[0]}, its image is "
                f"{size[1]}x{size[0]} (width x height): predict again"
            )
        if pred.max(initial=0) >= len(self.colors) or pred.min(initial=0) < 0:
            raise DataError(
                f"prediction {gray} holds id {pred.max()}, but DATA.classes is "
                f"{len(self.colors)}: it is of other classes, predict again"
            )
        return pred

    def _targets(self, name: str) -> list[Path]:
        """gray, color, overlay and, if there is an export, submission."""
        kinds = [self.path / kind / f"{name}.png" for kind in ("gray", "color", "overlay")]
        flat = [self.submission / f"{Path(name).name}.png"] if self.export is not None else []
        return kinds + flat

    def _has_predictions(self) -> bool:
        return any((self.path / "gray").rglob("*.png"))

    def _check_targets(
        self, before: dict[str, Any], targets: list[Path], inputs: Iterable[Path]
    ) -> None:
        """A folder with protocol.json is one of ours; elsewhere nothing is overwritten."""
        check_targets(
            [*(self.path / name for name in _FILES), *targets],
            inputs=inputs,
            is_ours=lambda path: bool(before),
            key="TEST.save_folder",
        )

    def _check_same(self, before: dict[str, Any]) -> None:
        mine = json.loads(json.dumps(self.protocol))  # as it comes back from a file
        differing = [
            f"{name} (there {_short(before.get(name))}, now {_short(mine.get(name))})"
            for name in {**mine, **before}
            if name not in _FREE and before.get(name) != mine.get(name)
        ]
        if differing:
            raise ConfigError(
                f"the predictions in {self.path} were made with another {', '.join(differing)}: "
                f"{_OTHER}, or remove that folder"
            )

    def _write_protocol(self) -> None:
        write_text(self.path / "protocol.json", json.dumps(self.protocol, indent=2) + "\n")

    def _note(self, image: np.ndarray) -> str:
        """A fingerprint of what a prediction depends on: protocol and image."""
        kept = {name: value for name, value in self.protocol.items() if name not in _FREE}
        digest = sha256(json.dumps([kept, image.shape], sort_keys=True).encode())
        digest.update(np.ascontiguousarray(image).data)
        return digest.hexdigest()


def read_protocol(folder: Path) -> dict[str, Any]:
    """What protocol.json holds, {} where there is none. Raises ConfigError for another file."""
    path = folder / "protocol.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(content, dict) and "checkpoint_sha256" in content:
            return content
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError):
        pass
    raise ConfigError(f"{path} is damaged or not of a test: {_OTHER}, or remove that folder")


def file_sha256(path: str | Path) -> str:
    """Of a file's bytes, in hexadecimal."""
    digest = sha256()
    with Path(path).open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def _short(value: Any) -> str:
    """A value in a sentence; of a mapping or a hash its beginning."""
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 40 else f"{text[:12]}..."
