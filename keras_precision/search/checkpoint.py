"""Project: the folder of a search, with the identity of the search and the evaluation of every trial."""

import hashlib
import io
import json
import os
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np

from keras_precision.core.errors import DestinationError
from keras_precision.core.system.array_files import read_arrays
from keras_precision.core.system.files import remove_leftovers, replace_folder, working_folder, write_atomic
from keras_precision.core.system.json_documents import Fields, document, parse_document
from keras_precision.export.plan_space import Space
from keras_precision.search.distributed.saved_oracle import damaged_trial, named_damage
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
        """Raise ``DestinationError`` if the folder cannot be made, or has another search or other files, unless they may be overwritten."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except (OSError, ValueError) as error:  # ValueError: a name with a null character
            raise DestinationError(
                f"Expected a folder that can be made and written. Received: '{self.folder}' "
                f"({getattr(error, 'strerror', None) or error}). Choose another directory or project_name."
            ) from error
        remove_leftovers(self.folder)
        if overwrite or not any(self.folder.iterdir()):
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

    def clear(self) -> None:
        """Put an empty folder in the place of the search, in one step: a kill leaves all of it, or nothing."""
        with working_folder(self.folder) as folder:
            (folder / "empty").mkdir()
            replace_folder(folder / "empty", self.folder)

    def record(self, identity: Mapping[str, str]) -> None:
        """Save what distinguishes this search from others, in addition to what is saved already."""
        saved = self._saved_identity() if self._identity_file.exists() else {}
        if set(identity) - set(saved):
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomic(self._identity_file, document(_FORMAT, _VERSION, {"purpose": {**identity, **saved}}))

    def _saved_identity(self) -> Mapping[str, str]:
        path = self._identity_file
        with named_damage(path, "Restore it, or pass overwrite=True to remove the search."):
            return parse_document(path.read_bytes(), path, _FORMAT, _VERSION).texts("purpose")

    def save_evaluation(self, trial_id: str, evaluation: Evaluation) -> None:
        """Save the evaluation of a trial atomically."""
        packed = io.BytesIO()
        arrays = {f"answers_{number}": outputs for number, outputs in enumerate(evaluation.predictions)}
        figures = np.frombuffer(json.dumps(dict(evaluation.figures)).encode(), np.uint8)
        np.savez(packed, figures=figures, **arrays)  # type: ignore[arg-type] # its stub takes every keyword for an option
        folder = self.folder / f"trial_{trial_id}"
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(folder / "evaluation.npz", packed.getvalue())

    def load_evaluation(self, trial: Any) -> Evaluation | None:
        """Return the saved evaluation of a trial of KerasTuner, or None if there is none."""
        path = self._trial_folder(trial) / "evaluation.npz"
        if not path.exists():
            return None
        with self.damage_of(trial, path.name):
            arrays, names = read_arrays(path.read_bytes())
            fields = Fields(json.loads(arrays["figures"].tobytes()), str(path))
            # The tuner reports all figures to KerasTuner, the metric by another name, and the score.
            reported = [name for name in trial.metrics.metrics if name != "score" and not name.startswith("val_")]
            figures = {name: fields.get(name, (int, float)) for name in dict.fromkeys([*reported, *fields.values])}
            predictions = [arrays[f"answers_{number}"] for number in range(len(names) - 1)]
        return Evaluation(figures, predictions)

    def check_plans(self, trials: Mapping[str, Any], space: Space) -> None:
        """Raise ``FileFormatError`` if a trial has a plan that is not in the space."""
        for trial in trials.values():
            with self.damage_of(trial, "trial.json"):
                space.check(space.assignment(trial.hyperparameters.values))

    def damage_of(self, trial: Any, name: str) -> AbstractContextManager[None]:
        """Return a context in which a broken value raises a ``FileFormatError`` that names a file of a trial."""
        return damaged_trial(self._trial_folder(trial) / name)

    def _trial_folder(self, trial: Any) -> Path:
        return self.folder / f"trial_{trial.trial_id}"

    def outcomes(self, trials: Mapping[str, Any], space: Space) -> list[TrialOutcome]:
        """Return the completed ones of KerasTuner's trials by ID, whichever oracle and worker ran them."""
        outcomes = []
        for trial_id in sorted(trials, key=_sort_key):
            trial = trials[trial_id]
            evaluation = self.load_evaluation(trial) if trial.status == "COMPLETED" else None
            if evaluation is not None:
                values = trial.hyperparameters.values
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
