"""The files of an oracle of KerasTuner and its trials, read with errors that name the file and how to go on.

KerasTuner raises what a broken value happens to raise, without the file, and reads nothing where its first file is gone.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from keras_precision.core.errors import FileFormatError
from keras_precision.core.system.json_documents import Fields, parse_json
from keras_precision.core.system.optional import require

__all__ = ["damaged_oracle", "damaged_trial", "named_damage", "read_saved"]

_FORMAT = "KerasTuner"
_LISTS_OF_TRIALS = ("start_order", "end_order", "retry_queue")
_STATUSES = ("RUNNING", "INVALID", "COMPLETED", "FAILED")


def read_saved(oracle: Any) -> None:
    """Give an oracle its trials and its state, as its own ``reload`` does; trials alone, where its own file is gone."""
    # https://github.com/keras-team/keras-tuner/blob/v1.4.8/keras_tuner/src/engine/oracle.py
    path = Path(oracle._get_oracle_fname())
    for trial_path in sorted(path.parent.glob("trial_*/trial.json")):
        with damaged_trial(trial_path):
            trial = _trial(Fields(parse_json(trial_path.read_bytes(), trial_path, _FORMAT), str(trial_path)))
            if trial_path.parent.name != f"trial_{trial.trial_id}":
                raise ValueError(f"trial {trial.trial_id!r}")
            oracle.trials[trial.trial_id] = trial
    if path.exists():
        with damaged_oracle(path):
            oracle.set_state(_state(Fields(parse_json(path.read_bytes(), path, _FORMAT), str(path)), oracle.trials))
    oracle._retry_queue += [trial.trial_id for trial in oracle.ongoing_trials.values()]
    oracle.ongoing_trials = {}


@contextmanager
def named_damage(path: Path, remedy: str) -> Iterator[None]:
    """Raise ``FileFormatError`` with a path and a remedy for what a broken value in a file raises."""
    try:
        yield
    except (
        AttributeError, LookupError, OSError, OverflowError, RecursionError, RuntimeError, TypeError, ValueError
    ) as error:  # fmt: skip
        reason = str(error).removeprefix(f"{path}: ") or type(error).__name__
        raise FileFormatError(
            f"{path}: expected a file of a search. Received: a damaged one ({reason}). {remedy}"
        ) from error


def damaged_trial(path: Path) -> AbstractContextManager[None]:
    """Return ``named_damage`` for a file of a trial."""
    return named_damage(
        path, f"Remove the folder '{path.parent}', and search again: the search goes on without that trial."
    )


def damaged_oracle(path: Path) -> AbstractContextManager[None]:
    """Return ``named_damage`` for the file of an oracle."""
    return named_damage(path, "Remove it, and search again: the search goes on from the files of its trials.")


def _trial(fields: Fields) -> Any:
    """Return a trial whose fields have the types that KerasTuner takes for granted."""
    trials: Any = require("keras_tuner", extra="search").engine.trial
    if fields.get("status", str) not in _STATUSES:
        raise ValueError(f"the status {fields.get('status', str)!r}")
    for name in ("score", "best_step"):
        fields.get(name, (int, float, type(None)))
    fields.get("message", (str, type(None)))
    names = ("trial_id", "hyperparameters", "metrics", "score", "best_step", "status", "message")
    trial = trials.Trial.from_state({name: fields.get(name, (str, dict, int, float, type(None))) for name in names})
    for metric in trial.metrics.metrics.values():
        metric.get_best_value()
        metric.get_best_step()
    return trial


def _state(fields: Fields, trials: Mapping[str, Any]) -> dict[str, Any]:
    """Return the state of an oracle without the trials whose folders were removed."""
    state: dict[str, Any] = dict(fields.values)
    for name in _LISTS_OF_TRIALS:
        state[name] = [trial_id for trial_id in fields.text_list(name) if trial_id in trials]
    ongoing = fields.texts("ongoing_trials")
    state["ongoing_trials"] = {name: trial_id for name, trial_id in ongoing.items() if trial_id in trials}
    return state
