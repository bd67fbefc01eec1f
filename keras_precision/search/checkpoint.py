"""Project: the folder of a search, what it was made for, and what each trial's file cost and answered."""

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from keras_precision.core.errors import DestinationError, FileFormatError
from keras_precision.core.system.files import write_whole
from keras_precision.core.system.json_documents import document, parse_document
from keras_precision.search.evaluation.evaluator import Evaluation, Held

__all__ = ["Project", "digest_of"]

_FORMAT, _VERSION = "keras_precision.search", 1
# Version 1 (2026-11): what the search is of: weights, choices, budget, objective, data.


class Project:
    """A folder that KerasTuner keeps its trials in.

    Args:
        folder: ``directory/project_name``.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)

    @property
    def _card(self) -> Path:
        return self.folder / "search.json"

    def claim(self, purpose: Mapping[str, str], *, overwrite: bool) -> None:
        """Make the folder that of one search, or find that it already is.

        Args:
            purpose: What tells this search from others.
            overwrite: Whether what lies there may go: KerasTuner then removes it.

        Raises:
            DestinationError: The folder holds another search, or something else.
        """
        if overwrite or not self.folder.exists() or not any(self.folder.iterdir()):
            return
        if not self._card.exists():
            raise DestinationError(
                f"Expected an empty folder, or that of a precision search. Received: '{self.folder}', which holds other files. "
                "Choose another project_name, or pass overwrite=True to remove them."
            )
        known = self._known()
        others = [name for name, value in purpose.items() if name in known and known[name] != value]
        if others:
            told = ", ".join(f"{name} ({known[name]}, now {purpose[name]})" for name in others)
            raise DestinationError(
                f"Expected the folder of the same search. Received: '{self.folder}', that of a search with another {told}. "
                "Choose another project_name, or pass overwrite=True to remove it."
            )

    def sign(self, purpose: Mapping[str, str]) -> None:
        """Write down what the search is of, and what has become known of it since.

        Args:
            purpose: As for ``claim``.
        """
        known = self._known() if self._card.exists() else {}
        if set(purpose) - set(known):
            self.folder.mkdir(parents=True, exist_ok=True)
            write_whole(self._card, document(_FORMAT, _VERSION, {"purpose": {**purpose, **known}}))

    def _known(self) -> Mapping[str, str]:
        return parse_document(self._card.read_bytes(), self._card, _FORMAT, _VERSION).texts("purpose")

    def keep(self, trial_id: str, evaluation: Evaluation) -> None:
        """Write what a trial's file cost and answered, whole or not at all.

        Args:
            trial_id: The trial.
            evaluation: Its outcome.
        """
        packed = io.BytesIO()
        arrays = {f"answers_{number}": each for number, each in enumerate(evaluation.answers)}
        figures = np.frombuffer(json.dumps(dict(evaluation.figures)).encode(), np.uint8)
        np.savez(packed, figures=figures, **arrays)  # type: ignore[arg-type] # its stub takes every keyword for an option
        folder = self.folder / f"trial_{trial_id}"
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / "evaluation.npz", packed.getvalue())

    def kept(self, trial_id: str) -> Evaluation | None:
        """Return what ``keep`` wrote.

        Args:
            trial_id: The trial.

        Returns:
            Its outcome; None where there is none.

        Raises:
            FileFormatError: The file is damaged.
        """
        path = self.folder / f"trial_{trial_id}" / "evaluation.npz"
        if not path.exists():
            return None
        try:
            with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as content:
                figures = json.loads(content["figures"].tobytes())
                answers = [content[f"answers_{number}"] for number in range(len(content.files) - 1)]
        except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
            raise FileFormatError(
                f"{path}: expected the outcome of a trial. Received: a damaged file ({error}). Remove it, and search again."
            ) from error
        return Evaluation(figures, answers)


def digest_of(held: Held) -> str:
    """Return what tells the data of a search from others.

    Args:
        held: The data.

    Returns:
        Hexadecimal digits.
    """
    digest = hashlib.blake2b(digest_size=8)
    arrays: list[Any] = [*held.samples.values(), *([] if held.truth is None else [held.truth])]
    for array in arrays:
        values = np.ascontiguousarray(array)
        digest.update(f"{values.shape}{values.dtype}".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()
