"""SearchContext: a calibrated model with the plans to search and their evaluator."""

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

from keras_precision._adapters.layer_paths import layer_paths
from keras_precision.export.calibration_choice import method_of
from keras_precision.export.plan_compiler import PlanCompiler
from keras_precision.export.plan_space import Space
from keras_precision.export.units import find_space
from keras_precision.quantization.calibration import Calibration, calibrate
from keras_precision.quantization.range_estimators import AUTO
from keras_precision.search.evaluation.evaluator import Evaluator
from keras_precision.search.evaluation.validation_set import ValidationSet

__all__ = ["SearchContext", "prepare_search"]


class SearchContext(NamedTuple):
    """What plans are compiled from and evaluated with."""

    calibration: Calibration
    space: Space
    evaluator: Evaluator


def prepare_search(
    model: Any,
    data: Any,
    validation: ValidationSet,
    choices: Sequence[str],
    *,
    runtime: str = "litert",
    latency: bool = False,
    threads: int | None = None,
) -> SearchContext:
    """Calibrate a model on representative data, unless those are a calibration, and find the precisions of its layers.

    The choices are those from ``check_choices``; None threads are one interpreter per core.
    """
    calibration = data.expect(model) if isinstance(data, Calibration) else calibrate(model, data)
    compiler = PlanCompiler(calibration, method_of(calibration, AUTO))
    weights = {path: int(layer.count_params()) for path, layer in layer_paths(model).items()}
    space = find_space(compiler, calibration.float_file.trace, weights, choices, runtime)
    if threads is None:  # macOS and Windows have no sched_getaffinity
        threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    evaluator = Evaluator(calibration, compiler, space, validation, latency=latency, threads=threads)
    return SearchContext(calibration, space, evaluator)
