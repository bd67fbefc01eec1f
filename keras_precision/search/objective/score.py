"""Score: a compiled metric, or any metric of Keras, computed on the predictions of a file."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from keras_precision._adapters import KerasAdapter, adapter_of
from keras_precision._adapters.rebuild import compile_argument, is_compiled
from keras_precision.core.errors import InputError, nearest
from keras_precision.core.metrics import metric_of
from keras_precision.scoring.scores import SCORES

__all__ = ["Direction", "Score", "compiled_names", "score_of"]

Array = npt.NDArray[Any]
Direction = Literal["max", "min"]


@dataclass(frozen=True)
class Score:
    """A metric of predictions.

    Attributes:
        name: Its name in results.
        direction: ``"max"`` if higher is better, else ``"min"``.
        compute: A function of labels and predictions, both of shape (n, ...).
        alias: The name under which it was compiled, such as ``"mae"``; None if it is the same.
    """

    name: str
    direction: Direction
    compute: Callable[[Array, Array], float]
    alias: str | None = None

    @property
    def logged(self) -> str:
        """Its name in the logs of a training."""
        return self.alias or self.name

    def drop(self, reference: float, value: float) -> float:
        """Return how much worse a value is than the reference, in the metric's unit; positive is worse."""
        return reference - value if self.direction == "max" else value - reference


def score_of(model: Any, metric: Any, direction: str | None = None, *, compiled: bool = True) -> Score:
    """Return the score of a metric: a name, a metric object of Keras, a function of labels and predictions, or a score.

    A name is that of a compiled metric of the model or ``"loss"``; without ``compiled``, and for a model that is not
    compiled, as after loading without that, of any metric of Keras. The direction, ``"max"`` or ``"min"``, is needed only where the metric does not define it.
    """
    if isinstance(metric, Score):
        return metric
    adapter = adapter_of(model)
    if not isinstance(metric, str) or not compiled:
        return _with_direction(_build(adapter, metric), direction)
    if not is_compiled(model):
        return _with_direction(_build(adapter, metric.removeprefix("val_")), direction)
    name, loss = metric.removeprefix("val_"), compile_argument(model, "loss")
    if name == "loss" and loss is not None:
        return Score("loss", "min", _loss_function(adapter, loss))
    metrics = list(_flatten(compile_argument(model, "metrics")))
    by_alias = {alias: entry for entry in metrics for alias in _aliases(entry)}
    if name not in by_alias:
        names = sorted({_aliases(entry)[0] for entry in metrics})
        listed = f"it is compiled with {', '.join(names)}" if names else "it is compiled with no metrics"
        raise InputError(
            f"Expected a metric that the model '{model.name}' is compiled with. Received: '{metric}'; {listed}. "
            f"{nearest(name, by_alias)} Compile it with metrics=['{name}'], or pass metric=keras.metrics.SomeMetric().".replace(
                "  ", " "
            )
        )
    score = _with_direction(_build(adapter, by_alias[name]), direction)
    return replace(score, alias=_aliases(by_alias[name])[-1])


def compiled_names(model: Any) -> list[str]:
    """Return the names in the logs of a compiled model's training: ``"loss"``, and those of its metrics."""
    return ["loss", *(_aliases(metric)[-1] for metric in _flatten(compile_argument(model, "metrics")))]


def _flatten(metrics: Any) -> Iterator[Any]:
    if isinstance(metrics, Mapping):
        for value in metrics.values():
            yield from _flatten(value)
    elif isinstance(metrics, list | tuple):
        for value in metrics:
            yield from _flatten(value)
    elif metrics is not None:
        yield metrics


def _aliases(metric: Any) -> list[str]:
    """Return the name of a metric in results, and, if it differs, the user's name for it, which is that in logs."""
    name = metric if isinstance(metric, str) else str(getattr(metric, "name", getattr(metric, "__name__", metric)))
    score = SCORES.get(name)
    return list(dict.fromkeys([score.__name__ if score else name, name]))


def _build(adapter: KerasAdapter, metric: Any) -> tuple[str, Any, Callable[[Array, Array], float]]:
    """Return the name of a metric, the metric, and its function of labels and predictions."""
    if isinstance(metric, str) and metric in SCORES:
        return SCORES[metric].__name__, metric, SCORES[metric]
    keras = adapter.keras
    try:
        source = keras.metrics.get(metric) if isinstance(metric, str) else metric
    except ValueError as error:
        raise InputError(
            f"Expected a metric of Keras. Received: {metric!r}. Pass the name of one, or an object of keras.metrics."
        ) from error
    if hasattr(source, "update_state"):
        copied = type(source).from_config(source.get_config())  # a copy, so that the caller's metric keeps its state
    else:  # a function of (y_true, y_pred)
        copied = keras.metrics.MeanMetricWrapper(source, name=getattr(source, "__name__", str(metric)))

    def compute(labels: Array, predictions: Array) -> float:
        copied.reset_state()
        copied.update_state(labels, _in_float32(predictions))
        return float(np.asarray(_numpy(keras, copied.result())))

    return str(copied.name), copied, compute


def _with_direction(built: tuple[str, Any, Callable[[Array, Array], float]], direction: str | None) -> Score:
    name, metric, compute = built
    better = metric_of(name).better
    # Keras 3 has the direction of its metrics in this private attribute alone; tf_keras has none.
    # https://github.com/keras-team/keras/blob/v3.15.1/keras/src/metrics/accuracy_metrics.py
    from_keras = {"up": "max", "down": "min"}.get(str(getattr(metric, "_direction", None)))
    chosen = direction or ({"higher": "max", "lower": "min"}[better] if better else from_keras)
    if chosen not in ("max", "min"):
        raise InputError(
            f"Expected the direction of the metric '{name}', which is not known. Received: {direction!r}. "
            f"Pass objective=keras_tuner.Objective('val_{name}', 'max'), or 'min'."
        )
    return Score(name, "max" if chosen == "max" else "min", compute)


def _loss_function(adapter: KerasAdapter, loss: Any) -> Callable[[Array, Array], float]:
    losses = list(_flatten(loss))
    if len(losses) != 1:
        raise InputError(
            f"Expected a model that is compiled with one loss, to search by it. Received: {len(losses)}. Search by the divergence."
        )
    function = adapter.keras.losses.get(losses[0])

    def compute(labels: Array, predictions: Array) -> float:
        if labels.ndim == predictions.ndim - 1 and predictions.shape[-1] == 1:
            labels = labels[..., np.newaxis]  # as in fit; otherwise (n,) and (n, 1) broadcast to (n, n)
        return float(np.mean(_numpy(adapter.keras, function(labels, _in_float32(predictions)))))

    return compute


def _in_float32(predictions: Array) -> Array:
    """Return float64 predictions, which come from the error model, in float32, which every metric accepts."""
    return predictions.astype(np.float32) if predictions.dtype == np.float64 else predictions


def _numpy(keras: Any, value: Any) -> Array:
    convert = getattr(getattr(keras, "ops", None), "convert_to_numpy", np.asarray)  # tf_keras has no ops
    return np.asarray(convert(value))
