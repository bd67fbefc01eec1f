"""sensitivity: what each layer alone, in another precision, does to the answers and to the costs."""

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
from keras_precision.search.evaluation.setting import ready
from keras_precision.search.evaluation.validation_set import check_count, held_out
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
    """Change the precision of one layer at a time, and run the file: which layers suffer, and what is gained.

    The model is calibrated once. The other layers stay in the first of ``choices``, or in int8 where that is among
    them. Layers that the file computes in one operator (a convolution with its normalization and activation) go
    together, and are called by the one with the weights.

    Args:
        model: A built functional or sequential model.
        representative_dataset: As for ``kp.calibrate``, or what that returned.
        choices: Deployment precisions. A layer that the file cannot compute in one of them is left out there.
        validation_data: Samples, or ``(samples, labels)``, that files are run on; None: the representative data.
        metric: A compiled metric's name, ``"loss"``, or a metric of Keras; needs labels. Adds its value.
        samples: How many samples are used at most, evenly spread.
        latency: Whether each file is timed, call by call in turn with that of the baseline.
        runtime: What the files are to run on.
        verbose: Whether to draw a progress bar; None: where it takes long, on a terminal.

    Returns:
        For the subjects ``"all in int8"`` and, such as, ``"stem in int4"``: ``divergence`` (mean Kullback-Leibler
        divergence from the float model in nats; for other outputs the mean squared difference in variances of its
        answers), ``size_bytes``, ``bit_operations``, the metric, ``latency_ms``. Its plan is that of the baseline.

    Raises:
        InputError: The choices, the metric or the runtime cannot be used.
        DataError: Data are missing, or do not fit the model.
        ModelError: The model is subclassed or not built.
        ExportError: It cannot be converted.
        MissingExtraError: TensorFlow, AI Edge Quantizer or the interpreter is not installed.

    Example:
        >>> result = sensitivity(model, x_cal)
        >>> result.value("divergence", "dense in int4") > result.value("divergence", "all in int8")
        True
    """
    wanted = check_choices(choices)
    inputs = adapter_of(model).inputs(model)
    installed_runtime()
    score = None if metric is None else score_of(model, metric)
    if validation_data is None:
        if isinstance(representative_dataset, Calibration):
            raise DataError(
                "Expected samples to run the files on. Received: a calibration, which holds none. Pass validation_data=x."
            )
        representative_dataset = validation_data = read_samples(representative_dataset, inputs)
    held = held_out(model, validation_data, score, check_count(samples))
    setting = ready(model, representative_dataset, held, wanted, runtime=runtime, latency=latency)
    space, evaluator = setting.space, setting.evaluator
    rows: list[Measurement] = list(_rows("float model", evaluator.reference_figures))
    with progress("lowering layers", "files", len(space.single()) + 1, verbose=verbose) as advance:
        for assignment in (space.start, *space.single()):
            subject = f"all in {space.baseline}"
            for unit, choice, usual in zip(space.units, assignment, space.start, strict=True):
                if choice != usual:
                    subject = f"{unit.name} in {choice}"
            rows += _rows(subject, evaluator(assignment).figures)
            advance(1)
    environment = Environment.here(backend="litert", sources={"divergence": f"{held.count} samples"})
    return Result(f"sensitivity:{','.join(wanted)}", tuple(rows), environment, space.plan(space.start))


def _rows(subject: str, figures: Mapping[str, float]) -> Iterator[Measurement]:
    for name, value in figures.items():
        whole = name in ("size_bytes", "bit_operations") and np.isfinite(value)
        yield Measurement(subject, name, int(value) if whole else value)
