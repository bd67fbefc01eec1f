"""Setting: a model, its data and its choices, checked and made ready to judge plans with."""

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from keras_precision._adapters import adapter_of
from keras_precision._adapters.paths import layer_paths
from keras_precision._adapters.samples import read_samples
from keras_precision.deploy.method import method_of
from keras_precision.errors import DataError
from keras_precision.quantize.calibration import Calibration, calibrate
from keras_precision.ranges import AUTO
from keras_precision.search.evaluator import Evaluator, Held
from keras_precision.search.maker import FileMaker
from keras_precision.search.metric import Score
from keras_precision.search.space import Space
from keras_precision.search.units import find_space

__all__ = ["Setting", "held_out", "ready"]


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


def held_out(model: Any, x: Any, y: Any, score: Score | None, most: int | None = None) -> Held:
    """Return the data that plans are judged on, checked.

    Args:
        model: The model.
        x: Samples, as the model takes them.
        y: Labels; None where there are none.
        score: The metric of them.
        most: Samples that are kept, evenly spread; None for all.

    Returns:
        The data.

    Raises:
        DataError: They do not fit the model, or labels are missing for a metric.
    """
    samples = read_samples(x, adapter_of(model).inputs(model))
    count = len(next(iter(samples.values())))
    truth = None if y is None else np.asarray(y)
    if truth is not None and len(truth) != count:
        raise DataError(
            f"Expected as many labels as samples in validation_data. Received: {len(truth)} labels for {count} samples."
        )
    if score is not None and truth is None:
        raise DataError(
            f"Expected labels for the metric '{score.name}'. Received: samples alone. Pass validation_data=(x, y), or "
            "search by the divergence from the float model, which needs none."
        )
    if score is not None and len(model.outputs) != 1:
        raise DataError(
            f"Expected a model with one output for the metric '{score.name}'. Received: '{model.name}' with {len(model.outputs)}. "
            "Search by the divergence."
        )
    if most is not None and most < count:
        kept = np.linspace(0, count - 1, most).astype(int)
        samples = {name: values[kept] for name, values in samples.items()}
        truth = None if truth is None else truth[kept]
    return Held(samples, truth, score)


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
