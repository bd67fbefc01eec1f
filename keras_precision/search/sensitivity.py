"""sensitivity: the effect of one layer's precision on predictions and costs, layer by layer."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from keras_precision._adapters import adapter_of
from keras_precision._adapters.data.samples import read_samples
from keras_precision.core.environment import Environment
from keras_precision.core.errors import DataError
from keras_precision.core.result import Measurement, Result
from keras_precision.core.system.progress import progress
from keras_precision.export.units import check_choices
from keras_precision.quantization.calibration import Calibration
from keras_precision.runtimes.tflite.file import runtime as installed_runtime
from keras_precision.search.evaluation.evaluator import prepare_evaluator
from keras_precision.search.evaluation.validation_set import check_count, read_validation_set
from keras_precision.search.objective.score import score_of

__all__ = ["sensitivity"]

_SAMPLES = 256


def sensitivity(
    model: Any,
    representative_dataset: Any,
    choices: Sequence[str] = ("int8", "int4"),
    *,
    validation_data: Any = None,
    metric: Any = None,
    samples: int = _SAMPLES,
    latency: bool = False,
    runtime: str = "litert",
    verbose: bool | None = None,
) -> Result:
    """Change the precision of one layer at a time and run the file, to find the sensitive layers and the savings.

    The model is calibrated once. The other layers stay in int8 if that is one of ``choices``, else in the first choice.
    Layers that the file computes in one operator (a convolution with its normalization and activation) change
    together, under the name of the layer with the weights. Every file is the one that ``kp.export_tflite`` writes.

    Args:
        model: A built functional or sequential model.
        representative_dataset: As for ``kp.calibrate``, or a calibration.
        choices: Deployment precisions. A choice that the file cannot compute for a layer is skipped for that layer.
        validation_data: Samples, or ``(samples, labels)``, on which files are run; None: the representative data.
        metric: The name of a compiled metric, ``"loss"``, or a metric of Keras; needs labels. Adds its value.
        samples: The maximum number of samples, evenly spread over the data.
        latency: Whether to time the files, with calls interleaved with those of the baseline.
        runtime: The runtime for which the files are meant.
        verbose: Whether to draw a progress bar; None: on a terminal, if it takes long.

    Returns:
        For the subjects ``"all in int8"``, for example ``"stem in int4"``, and, where those are integers,
        ``"inputs and outputs in float32"``: ``divergence`` (mean Kullback-Leibler
        divergence from the float model in nats; for outputs that are no probabilities, the mean squared difference in
        units of the variance of the float model's outputs), ``size_bytes``, ``bit_operations``, the metric,
        ``latency_ms``. The plan of the result is the baseline.

    Raises:
        InputError: The choices, the metric or the runtime cannot be used.
        DataError: Data are missing or do not fit the model.
        ModelError: The model is subclassed or not built.
        ExportError: It cannot be converted.
        MissingExtraError: TensorFlow, AI Edge Quantizer or the interpreter is not installed.

    Example:
        >>> result = sensitivity(model, x_cal)
        >>> result.value("divergence", "dense in int4") > result.value("divergence", "all in int8")
        True
    """
    precisions = check_choices(choices)
    inputs = adapter_of(model).inputs(model)
    installed_runtime()
    score = None if metric is None else score_of(model, metric)
    if validation_data is None:
        if isinstance(representative_dataset, Calibration):
            raise DataError(
                "Expected samples to run the files on. Received: a calibration, which holds none. Pass validation_data=x."
            )
        representative_dataset = validation_data = read_samples(representative_dataset, inputs)
    validation = read_validation_set(model, validation_data, score, check_count(samples))
    evaluator = prepare_evaluator(
        model, representative_dataset, validation, precisions, runtime=runtime, latency=latency
    )
    space = evaluator.space
    rows: list[Measurement] = list(_rows("float model", evaluator.reference_figures))
    with progress("quantizing layers", "files", len(space.single()) + 1, verbose=verbose) as advance:
        for assignment in (space.start, *space.single()):
            subject = f"all in {space.baseline}"
            for unit, choice, default in zip(space.units, assignment, space.start, strict=True):
                if choice != default:
                    subject = f"{unit.name} in {choice}"
            rows += _rows(subject, evaluator(assignment).figures)
            advance(1)
    if space.plan(space.start).io_type != "float32":
        rows += _rows("inputs and outputs in float32", evaluator.with_io("float32")(space.start).figures)
    environment = Environment.here(backend="litert", sources={"divergence": f"{validation.count} samples"})
    return Result(f"sensitivity:{','.join(precisions)}", tuple(rows), environment, space.plan(space.start))


def _rows(subject: str, figures: Mapping[str, float]) -> Iterator[Measurement]:
    for name, value in figures.items():
        is_count = name in ("size_bytes", "bit_operations") and np.isfinite(value)
        yield Measurement(subject, name, int(value) if is_count else value)
