"""The ways to judge a plan, by name."""

from collections.abc import Sequence
from typing import Any

from keras_precision.errors import InputError, nearest
from keras_precision.plan import TRAINING_PRECISIONS
from keras_precision.search.groups import Grouping
from keras_precision.search.mode import Mode
from keras_precision.search.post_training import PostTraining
from keras_precision.search.quantization_aware import QuantizationAware
from keras_precision.search.training_runs import TrainingRuns
from keras_precision.search.wishes import Wishes

__all__ = ["DEPLOYED", "mode_of"]

DEPLOYED = ("int8", "int4", "int16x8", "float32")
"""What a search chooses from, where nothing is said."""

_NAMES = (PostTraining.name, QuantizationAware.name, TrainingRuns.name)


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
    if name == TrainingRuns.name:
        return TrainingRuns(model, TRAINING_PRECISIONS if choices is None else choices, wishes, groups=groups)
    if name == QuantizationAware.name:
        return QuantizationAware(model, choices or ("int8", "int4"), wishes, runtime=runtime, samples=samples)
    if name == PostTraining.name:
        return PostTraining(model, DEPLOYED if choices is None else choices, wishes, runtime=runtime, samples=samples)
    raise InputError(
        f"Expected evaluation to be one of {', '.join(_NAMES)}. Received: {name!r}. {nearest(str(name), _NAMES)}".rstrip()
    )
