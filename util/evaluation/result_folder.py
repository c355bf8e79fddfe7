"""A result folder: the predictions of one test as PNG files, written atomically.

gray/ has class ids, color/ and overlay/ visualise them, submission/ has the ids a benchmark server
expects. protocol.json records what the predictions depend on; a folder has a single protocol.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from util.data.coding import LabelFacts, check_coding, facts_of
from util.data.file import write_text
from util.data.image import read_note, write_image, write_label
from util.data.label import decode_label, ids_of
from util.data.label_map import LabelMap
from util.data.load import spread
from util.error import ConfigError, DataError
from util.evaluation.output import check_targets, make_folder
from util.palette import colorize, overlay

# Entries that may differ: the same checkpoint in another place; a batch size chosen by memory.
_FREE = ("checkpoint", "batch_windows")
_FILES = (
    *("config.yaml", "environment.json", "git.diff"),
    *("scores.json", "confusion.npz", "report.html"),
)
_OTHER = "choose another TEST.save_folder"


@dataclass(frozen=True)
class ResultFolder:
    """The predictions of one protocol. Names are relative paths without extension.

    `colors` is (classes, 3) uint8; `export` (classes,) maps class ids to those of submission/.
    Palettes must agree with `class_colors`, r*65536 + g*256 + b of each class, () if unknown.
    """

    path: Path
    protocol: dict[str, Any]
    colors: np.ndarray
    export: np.ndarray | None = None
    class_colors: Sequence[int] = ()

    def open(self, names: Sequence[str], inputs: Iterable[Path]) -> None:
        """Prepare the folder for predictions of these names.

        Raises ConfigError if it has predictions of another protocol or if a file of the user,
        such as one of `inputs`, would be overwritten.
        """
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
        """Prepare for scoring the predictions in the folder. Raises ConfigError."""
        if not self.path.is_dir():
            raise ConfigError(
                f"TEST.has_prediction: no predictions, folder {self.path} does not exist: set "
                "TEST.save_folder to the one with gray/, or TEST.has_prediction False to predict"
            )
        before = read_protocol(self.path)
        self._check_targets(before, [path for n in names for path in self._targets(n)[3:]], [])
        if not before:
            self._write_protocol()

    def gray(self, name: str) -> Path:
        """Path of the file with class ids."""
        return self.path / "gray" / f"{name}.png"

    @property
    def submission(self) -> Path:
        """Folder of the submission files."""
        return self.path / "submission"

    def write(self, name: str, image: np.ndarray, pred: np.ndarray) -> None:
        """Write a prediction (H, W) of an image (H, W, 3) to color/, overlay/ and, last, gray/.

        The file in gray/ carries a fingerprint of the protocol and the image.
        """
        gray, color, overlaid = self._targets(name)[:3]
        write_image(color, colorize(pred, self.colors))
        write_image(overlaid, overlay(image, pred, self.colors))
        self.write_submission(name, pred)
        write_label(gray, pred, note=self._note(image))

    def write_submission(self, name: str, pred: np.ndarray) -> None:
        """Write submission/<last part of the name>.png if `export` is set."""
        if self.export is not None:
            write_label(self._targets(name)[3], self.export[pred])

    def find(self, name: str, image: np.ndarray) -> np.ndarray | None:
        """Return an earlier prediction of the same image with the same protocol, or None."""
        try:
            if read_note(self.gray(name)) == self._note(image):
                return self._read(name, image.shape[:2])
        except DataError:  # missing or damaged
            pass
        return None

    def check_first(self, names: Sequence[str]) -> LabelFacts | None:
        """Compare the first predictions with each other, as labels are. Raises DataError.

        Returns the facts about the very first one, None if there is none.
        """
        paths = [path for name in spread(names) if (path := self.gray(name)).is_file()]
        facts = [facts_of(decode_label(path)) for path in paths]
        self._check_coding(facts)
        return facts[0] if facts else None

    def read(self, name: str, image: np.ndarray, like: LabelFacts | None = None) -> np.ndarray:
        """Read an existing prediction (H, W), which must be coded like the one `like` describes.

        Raises DataError if it is missing, of another image or, if known, of another protocol.
        """
        gray = self.gray(name)
        if not gray.is_file():
            raise DataError(
                f"no prediction {gray}: TEST.has_prediction scores existing ones; set it to False "
                "to predict, or TEST.save_folder to the folder with the predictions"
            )
        pred = self._read(name, image.shape[:2], like)
        if self.protocol["checkpoint_sha256"] and read_note(gray) != self._note(image):
            raise DataError(
                f"prediction {gray} was not made as {self.path / 'protocol.json'} says, or of "
                f"another image: predict again with TEST.has_prediction False and {_OTHER[7:]}"
            )
        return pred

    def _read(self, name: str, size: tuple[int, int], like: LabelFacts | None = None) -> np.ndarray:
        gray = self.gray(name)
        label = decode_label(gray)
        if like is not None and label.storage != like.storage:
            self._check_coding([like, facts_of(label)])
        if label.kind == "colors":
            raise DataError(f"prediction {gray} is a colour image, not class ids: predict again")
        pred = ids_of(label)
        if pred.shape != size:
            raise DataError(
                f"prediction {gray} is {pred.shape[1]}x{pred.shape[0]}, its image is "
                f"{size[1]}x{size[0]} (width x height): predict again"
            )
        if pred.max(initial=0) >= len(self.colors) or pred.min(initial=0) < 0:
            raise DataError(
                f"prediction {gray} holds id {pred.max()}, but DATA.classes is "
                f"{len(self.colors)}: predict again with these classes"
            )
        return pred

    def _check_coding(self, facts: Sequence[LabelFacts]) -> None:
        label_map = LabelMap(len(self.colors), -1, colors=self.class_colors)  # nothing is void
        fix = "save all predictions as one-channel PNG files of class ids, without a palette"
        check_coding(facts, label_map, what="prediction", fix=fix)

    def _targets(self, name: str) -> list[Path]:
        """Paths in gray, color, overlay and, if `export` is set, submission."""
        kinds = [self.path / kind / f"{name}.png" for kind in ("gray", "color", "overlay")]
        flat = [self.submission / f"{Path(name).name}.png"] if self.export is not None else []
        return kinds + flat

    def _has_predictions(self) -> bool:
        return any((self.path / "gray").rglob("*.png"))

    def _check_targets(
        self, before: dict[str, Any], targets: list[Path], inputs: Iterable[Path]
    ) -> None:
        """Overwrite files only in folders with protocol.json, which we wrote."""
        check_targets(
            [*(self.path / name for name in _FILES), *targets],
            inputs=inputs,
            is_ours=lambda path: bool(before),
            key="TEST.save_folder",
        )

    def _check_same(self, before: dict[str, Any]) -> None:
        mine = json.loads(json.dumps(self.protocol))  # as read from a file
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
        """Fingerprint of the protocol and the image."""
        kept = {name: value for name, value in self.protocol.items() if name not in _FREE}
        digest = sha256(json.dumps([kept, image.shape], sort_keys=True).encode())
        digest.update(np.ascontiguousarray(image).data)
        return digest.hexdigest()


def read_protocol(folder: Path) -> dict[str, Any]:
    """Read protocol.json; {} if it does not exist. Raises ConfigError if it is invalid."""
    path = folder / "protocol.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(content, dict) and "checkpoint_sha256" in content:
            return content
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError):
        pass
    raise ConfigError(f"{path} is damaged or not from a test: {_OTHER}, or remove that folder")


def _short(value: Any) -> str:
    """Shorten a value for a message."""
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 40 else f"{text[:12]}..."
