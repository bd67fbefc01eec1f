"""Setting: a model, its data and its choices, checked and made ready to judge plans with."""

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

from keras_precision._adapters.layer_paths import layer_paths
from keras_precision.export.calibration_choice import method_of
from keras_precision.export.plan_compiler import FileMaker
from keras_precision.export.plan_space import Space
from keras_precision.export.units import find_space
from keras_precision.quantization.calibration import Calibration, calibrate
from keras_precision.quantization.range_estimators import AUTO
from keras_precision.search.evaluation.evaluator import Evaluator, Held

__all__ = ["Setting", "ready"]


class Setting(NamedTuple):
    """What plans are made of, and what they are judged with.

    Attributes:
        calibration: The values of the activations.
        space: The plans.
        evaluator: Their judge.
    """

    calibration: Calibration
    space: Space
    evaluator: Evaluator


def ready(
    model: Any,
    data: Any,
    held: Held,
    choices: Sequence[str],
    *,
    runtime: str = "litert",
    latency: bool = False,
    threads: int | None = None,
) -> Setting:
    """Calibrate a model, and find what can be chosen for its layers.

    Args:
        model: The model.
        data: Representative data, or a calibration.
        held: The data that plans are judged on.
        choices: Precisions, from ``check_choices``.
        runtime: What files are to run on.
        latency: Whether files are timed.
        threads: Interpreters that run side by side; None for one a core.

    Returns:
        The setting.

    Raises:
        PlanError: No layer has a choice.
        DataError: The data do not fit the model.
        ExportError: The model cannot be converted.
    """
    calibration = data.expect(model) if isinstance(data, Calibration) else calibrate(model, data)
    maker = FileMaker(calibration, method_of(calibration, AUTO))
    weights = {path: int(layer.count_params()) for path, layer in layer_paths(model).items()}
    space = find_space(maker, calibration.float_file.trace, weights, choices, runtime)
    used = threads if threads is not None else len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    return Setting(calibration, space, Evaluator(calibration, maker, space, held, latency=latency, threads=used))
