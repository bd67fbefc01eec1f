"""The evaluation modes by name."""

from collections.abc import Sequence
from typing import Any

from keras_precision.core.errors import InputError, nearest
from keras_precision.core.plan import TRAINING_PRECISIONS
from keras_precision.search.evaluation.mode import Mode
from keras_precision.search.evaluation.post_training import PostTraining
from keras_precision.search.evaluation.quantization_aware import QuantizationAware
from keras_precision.search.evaluation.training_runs import TrainingRuns
from keras_precision.search.groups import Grouping
from keras_precision.search.objective.objective import SearchObjective

__all__ = ["mode_of"]

_DEFAULT_CHOICES = {
    PostTraining.name: ("int8", "int4", "int16x8", "float32"),
    QuantizationAware.name: ("int8", "int4"),
    TrainingRuns.name: TRAINING_PRECISIONS,
}


def mode_of(
    name: str,
    model: Any,
    choices: Sequence[str] | None,
    objective: SearchObjective,
    *,
    runtime: str,
    samples: int | None,
    groups: Grouping,
) -> Mode:
    """Return an evaluation mode: ``"post_training"``, ``"quantization_aware"`` or ``"training"``.

    Choices of None are the defaults of the mode, ``samples`` of None all validation samples. Groups of layers matter
    for training plans only, the runtime and the samples for deployment plans only.
    """
    if name not in _DEFAULT_CHOICES:
        raise InputError(
            f"Expected evaluation to be one of {', '.join(_DEFAULT_CHOICES)}. Received: {name!r}. "
            f"{nearest(str(name), _DEFAULT_CHOICES)}".rstrip()
        )
    precisions = _DEFAULT_CHOICES[name] if choices is None else choices
    if name == TrainingRuns.name:
        return TrainingRuns(model, precisions, objective, groups=groups)
    kind = QuantizationAware if name == QuantizationAware.name else PostTraining
    return kind(model, precisions, objective, runtime=runtime, samples=samples)
