"""Project: the folder of a search, with the identity of the search and the evaluation of every trial."""

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
from keras_precision.core.system.files import write_atomic
from keras_precision.core.system.json_documents import document, parse_document
from keras_precision.export.plan_space import Space
from keras_precision.search.evaluation.evaluator import Evaluation
from keras_precision.search.evaluation.mode import is_finalist
from keras_precision.search.evaluation.validation_set import ValidationSet
from keras_precision.search.strategy.trials import TrialOutcome

__all__ = ["Project", "digest_of"]

_FORMAT, _VERSION = "keras_precision.search", 1
# Version 1 (2026-11): the identity of the search under "purpose": weights, choices, budget, objective, data.


class Project:
    """The folder ``directory/project_name``, in which KerasTuner saves its trials."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)

    @property
    def _identity_file(self) -> Path:
        return self.folder / "search.json"

    def claim(self, identity: Mapping[str, str], *, overwrite: bool) -> None:
        """Raise ``DestinationError`` if the folder has another search or other files, unless they may be overwritten."""
        if overwrite or not self.folder.exists() or not any(self.folder.iterdir()):
            return
        if not self._identity_file.exists():
            raise DestinationError(
                f"Expected an empty folder, or that of a precision search. Received: '{self.folder}', which holds other files. "
                "Choose another project_name, or pass overwrite=True to remove them."
            )
        saved = self._saved_identity()
        differing = [name for name, value in identity.items() if name in saved and saved[name] != value]
        if differing:
            changes = ", ".join(f"{name} ({saved[name]}, now {identity[name]})" for name in differing)
            raise DestinationError(
                f"Expected the folder of the same search. Received: '{self.folder}', that of a search with another {changes}. "
                "Choose another project_name, or pass overwrite=True to remove it."
            )

    def record(self, identity: Mapping[str, str]) -> None:
        """Save what distinguishes this search from others, in addition to what is saved already."""
        saved = self._saved_identity() if self._identity_file.exists() else {}
        if set(identity) - set(saved):
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomic(self._identity_file, document(_FORMAT, _VERSION, {"purpose": {**identity, **saved}}))

    def _saved_identity(self) -> Mapping[str, str]:
        return parse_document(self._identity_file.read_bytes(), self._identity_file, _FORMAT, _VERSION).texts("purpose")

    def save_evaluation(self, trial_id: str, evaluation: Evaluation) -> None:
        """Save the evaluation of a trial atomically."""
        packed = io.BytesIO()
        arrays = {f"answers_{number}": outputs for number, outputs in enumerate(evaluation.predictions)}
        figures = np.frombuffer(json.dumps(dict(evaluation.figures)).encode(), np.uint8)
        np.savez(packed, figures=figures, **arrays)  # type: ignore[arg-type] # its stub takes every keyword for an option
        folder = self.folder / f"trial_{trial_id}"
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(folder / "evaluation.npz", packed.getvalue())

    def load_evaluation(self, trial_id: str) -> Evaluation | None:
        """Return the saved evaluation of a trial, or None if there is none."""
        path = self.folder / f"trial_{trial_id}" / "evaluation.npz"
        if not path.exists():
            return None
        try:
            with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as content:
                figures = json.loads(content["figures"].tobytes())
                predictions = [content[f"answers_{number}"] for number in range(len(content.files) - 1)]
        except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
            raise FileFormatError(
                f"{path}: expected the outcome of a trial. Received: a damaged file ({error}). Remove it, and search again."
            ) from error
        return Evaluation(figures, predictions)

    def outcomes(self, trials: Mapping[str, Any], space: Space) -> list[TrialOutcome]:
        """Return the completed ones of KerasTuner's trials by ID, whichever oracle and worker ran them."""
        outcomes = []
        for trial_id in sorted(trials, key=_sort_key):
            evaluation = self.load_evaluation(trial_id) if trials[trial_id].status == "COMPLETED" else None
            if evaluation is not None:
                values = trials[trial_id].hyperparameters.values
                name, plan = f"trial {trial_id}", space.assignment(values)
                outcomes.append(TrialOutcome(name, plan, evaluation.figures, is_finalist(values)))
        return outcomes


def _sort_key(trial_id: str) -> tuple[int, str]:
    """Sort trials by number: KerasTuner pads to the digits of max_trials, which may have grown since the first trial."""
    digits = trial_id.lstrip("0")
    return len(digits), digits


def digest_of(validation: ValidationSet) -> str:
    """Return a hexadecimal digest of samples and labels, which distinguishes searches on different data."""
    digest = hashlib.blake2b(digest_size=8)
    arrays: list[Any] = [*validation.samples.values(), *([] if validation.labels is None else [validation.labels])]
    for array in arrays:
        values = np.ascontiguousarray(array)
        digest.update(f"{values.shape}{values.dtype}".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()
