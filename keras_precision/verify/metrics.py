"""Scorer: a metric by name, function or Keras object, as a function of labels and predictions."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_precision._adapters import adapter_for_file
from keras_precision.core.errors import InputError, nearest
from keras_precision.scoring.scores import SCORES

__all__ = ["Scorer", "make_scorer", "metrics_per_output"]

Array = npt.NDArray[Any]
Scorer = Callable[[Any, Array], dict[str, float]]
"""From labels and predictions to scores by name."""


def metrics_per_output(metrics: Any, outputs: Sequence[str]) -> list[list[Any]]:
    """Return a list of metrics for every output.

    Several outputs need a dict by output name, or a list of lists in their order.

    Example:
        >>> metrics_per_output({"size": "mae"}, ["kind", "size"])
        [[], ['mae']]
    """
    if isinstance(metrics, Mapping):
        for name in metrics:
            if name not in outputs:
                raise InputError(
                    f"Expected metrics for the outputs {', '.join(outputs)}. Received: {name!r}. {nearest(str(name), outputs)}".rstrip()
                )
        return [_listed(metrics.get(name, ())) for name in outputs]
    if len(outputs) == 1:
        return [_listed(metrics)]
    if isinstance(metrics, list | tuple) and not metrics:
        return [[] for _ in outputs]
    nested = isinstance(metrics, list | tuple) and all(isinstance(metric, list | tuple) for metric in metrics)
    if nested and len(metrics) == len(outputs):
        return [list(metric) for metric in metrics]
    raise InputError(
        f"Expected metrics for each of the outputs {', '.join(outputs)}. Received: {_described(metrics)}. "
        f"Say which is for which: metrics={{{outputs[0]!r}: [...], {outputs[1]!r}: [...]}}."
    )


def make_scorer(metric: Any) -> Scorer:
    """Return the scorer of a Keras metric name, a function of (truth, predictions), or a metric object of any Keras version.

    The state of a metric object is restored after use. A metric with several scores (one per class, say) has a number, or
    its key, behind its name.

    Example:
        >>> make_scorer("accuracy")([0, 1], np.array([[0.9, 0.1], [0.8, 0.2]]))
        {'accuracy': 0.5}
    """
    if isinstance(metric, str) and metric in SCORES:
        own = SCORES[metric]
        return lambda y, predictions: {own.__name__: own(y, predictions)}
    keras = adapter_for_file().keras
    try:
        known = keras.metrics.get(metric) if isinstance(metric, str) else metric
    except ValueError as error:
        raise InputError(
            f"Expected metrics among {', '.join(sorted(SCORES))}, or any of Keras. Received: {metric!r}."
        ) from error
    if not hasattr(known, "update_state"):  # a function of (y_true, y_pred)
        if not callable(known):
            raise InputError(f"Expected a metric: a name, a function or an object of Keras. Received: {metric!r}.")
        known = keras.metrics.MeanMetricWrapper(known, name=getattr(known, "__name__", str(metric)))

    def score(y: Any, predictions: Array) -> dict[str, float]:
        with _restored_state(known, keras):
            known.reset_state()
            known.update_state(y, predictions)
            return dict(_scores(str(known.name), known.result(), keras))

    return score


@contextmanager
def _restored_state(metric: Any, keras: Any) -> Iterator[None]:
    before = [keras.ops.convert_to_numpy(variable) for variable in metric.variables]
    try:
        yield
    finally:
        for variable, value in zip(metric.variables, before, strict=False):  # some are created on first use
            variable.assign(value)


def _scores(name: str, result: Any, keras: Any) -> Iterator[tuple[str, float]]:
    if isinstance(result, Mapping):
        for key, value in result.items():
            yield from _scores(f"{name}_{key}", value, keras)
        return
    values = np.asarray(keras.ops.convert_to_numpy(result))
    if values.size == 1:
        yield name, float(values.reshape(()))
    else:
        yield from ((f"{name}_{number}", float(value)) for number, value in enumerate(values.ravel()))


def _described(metrics: Any) -> str:
    if metrics is None:
        return "None"
    return f"a {type(metrics).__name__} of {len(metrics)}" if isinstance(metrics, list | tuple) else "one metric"


def _listed(metrics: Any) -> list[Any]:
    return list(metrics) if isinstance(metrics, list | tuple) else [metrics]
