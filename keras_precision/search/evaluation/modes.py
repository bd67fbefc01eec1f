"""The ways to judge a plan, by name."""

from collections.abc import Sequence
from typing import Any

from keras_precision.core.errors import InputError, nearest
from keras_precision.core.plan import TRAINING_PRECISIONS
from keras_precision.search.evaluation.mode import Mode
from keras_precision.search.evaluation.post_training import PostTraining
from keras_precision.search.evaluation.quantization_aware import QuantizationAware
from keras_precision.search.evaluation.training_runs import TrainingRuns
from keras_precision.search.groups import Grouping
from keras_precision.search.objective.objective import Wishes

__all__ = ["mode_of"]

_USUAL = {
    PostTraining.name: ("int8", "int4", "int16x8", "float32"),
    QuantizationAware.name: ("int8", "int4"),
    TrainingRuns.name: TRAINING_PRECISIONS,
}
"""What a search chooses from, where nothing is said."""


def mode_of(
    name: str,
    model: Any,
    choices: Sequence[str] | None,
    wishes: Wishes,
    *,
    runtime: str,
    samples: int | None,
    groups: Grouping,
) -> Mode:
    """Return a way to judge plans.

    Args:
        name: ``"post_training"``, ``"quantization_aware"`` or ``"training"``.
        model: The model.
        choices: Precisions; None for the usual ones.
        wishes: What is asked for.
        runtime: What files are to run on.
        samples: Validation samples that files are judged on at most; None for all.
        groups: Layers that are chosen for together, where plans are of training.

    Returns:
        The mode.

    Raises:
        InputError: There is no such mode, or an argument cannot be used.
        PrecisionError: The choices cannot be used.
    """
    if name not in _USUAL:
        raise InputError(
            f"Expected evaluation to be one of {', '.join(_USUAL)}. Received: {name!r}. {nearest(str(name), _USUAL)}".rstrip()
        )
    given = _USUAL[name] if choices is None else choices
    if name == TrainingRuns.name:
        return TrainingRuns(model, given, wishes, groups=groups)
    kind = QuantizationAware if name == QuantizationAware.name else PostTraining
    return kind(model, given, wishes, runtime=runtime, samples=samples)
