"""Score: a compiled metric, or any of Keras, computed on the answers of a file."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from keras_precision._adapters import KerasAdapter, adapter_of
from keras_precision._adapters.rebuild import compile_argument
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
        name: What results call it.
        direction: ``"max"`` where higher is better, else ``"min"``.
        compute: Labels and predictions, of shape (n, ...), to the figure.
        alias: What it was compiled as, such as ``"mae"``; None where that is its name.
    """

    name: str
    direction: Direction
    compute: Callable[[Array, Array], float]
    alias: str | None = None

    @property
    def logged(self) -> str:
        """What the logs of a training call it."""
        return self.alias or self.name

    def drop(self, reference: float, value: float) -> float:
        """Return how much worse a value is than another.

        Args:
            reference: That of the float model.
            value: That of a file.

        Returns:
            Positive where it is worse, in the metric's unit.
        """
        return reference - value if self.direction == "max" else value - reference


def score_of(model: Any, wanted: Any, direction: str | None = None, *, compiled: bool = True) -> Score:
    """Return the score that a name, or a metric of Keras, stands for.

    Args:
        model: The model. A name must be that of one of its compiled metrics, or ``"loss"``.
        wanted: The name, a ``keras.metrics.Metric``, a function of labels and predictions, or a score.
        direction: ``"max"`` or ``"min"``; None where it is known.
        compiled: Whether a name must be compiled; if not, it may be that of any metric of Keras.

    Returns:
        The score.

    Raises:
        InputError: No such metric is compiled, or its direction is not known.
    """
    if isinstance(wanted, Score):
        return wanted
    adapter = adapter_of(model)
    if not isinstance(wanted, str) or not compiled:
        return _with_direction(_made(adapter, wanted), direction)
    name, loss = wanted.removeprefix("val_"), compile_argument(model, "loss")
    if name == "loss" and loss is not None:
        return Score("loss", "min", _loss(adapter, loss))
    known = {alias: metric for metric in _flat(compile_argument(model, "metrics")) for alias in _aliases(metric)}
    if name not in known:
        names = sorted({_aliases(metric)[0] for metric in _flat(compile_argument(model, "metrics"))})
        listed = f"it is compiled with {', '.join(names)}" if names else "it is compiled with no metrics"
        raise InputError(
            f"Expected a metric that the model '{model.name}' is compiled with. Received: '{wanted}'; {listed}. "
            f"{nearest(name, known)} Compile it with metrics=['{name}'], or pass metric=keras.metrics.SomeMetric().".replace(
                "  ", " "
            )
        )
    return replace(_with_direction(_made(adapter, known[name]), direction), alias=_aliases(known[name])[-1])


def compiled_names(model: Any) -> list[str]:
    """Return what the logs of a training will have.

    Args:
        model: A compiled model.

    Returns:
        ``"loss"``, and each metric as Keras calls it there.
    """
    return ["loss", *(_aliases(metric)[-1] for metric in _flat(compile_argument(model, "metrics")))]


def _flat(metrics: Any) -> Iterator[Any]:
    if isinstance(metrics, Mapping):
        for value in metrics.values():
            yield from _flat(value)
    elif isinstance(metrics, list | tuple):
        for value in metrics:
            yield from _flat(value)
    elif metrics is not None:
        yield metrics


def _aliases(metric: Any) -> list[str]:
    """What a metric is called: in results, and by the user, and so in logs."""
    given = metric if isinstance(metric, str) else str(getattr(metric, "name", getattr(metric, "__name__", metric)))
    known = SCORES.get(given)
    return list(dict.fromkeys([known.__name__ if known else given, given]))


def _made(adapter: KerasAdapter, metric: Any) -> tuple[str, Any, Callable[[Array, Array], float]]:
    """Name, the metric, and what computes it."""
    if isinstance(metric, str) and metric in SCORES:
        return SCORES[metric].__name__, metric, SCORES[metric]
    keras = adapter.keras
    try:
        known = keras.metrics.get(metric) if isinstance(metric, str) else metric
    except ValueError as error:
        raise InputError(f"Expected a metric of Keras. Received: {metric!r}.") from error
    if hasattr(known, "update_state"):
        fresh = type(known).from_config(known.get_config())  # the caller's own keeps its state
    else:  # a function of (y_true, y_pred)
        fresh = keras.metrics.MeanMetricWrapper(known, name=getattr(known, "__name__", str(metric)))

    def compute(truth: Array, predictions: Array) -> float:
        fresh.reset_state()
        fresh.update_state(truth, _as_keras_has(predictions))
        return float(np.asarray(_numpy(keras, fresh.result())))

    return str(fresh.name), fresh, compute


def _with_direction(made: tuple[str, Any, Callable[[Array, Array], float]], direction: str | None) -> Score:
    name, metric, compute = made
    better = metric_of(name).better
    keras_says = {"up": "max", "down": "min"}.get(str(getattr(metric, "_direction", None)))
    told = direction or ({"higher": "max", "lower": "min"}[better] if better else keras_says)
    if told not in ("max", "min"):
        raise InputError(
            f"Expected the direction of the metric '{name}', which is not known. Received: {direction!r}. "
            f"Pass objective=keras_tuner.Objective('val_{name}', 'max'), or 'min'."
        )
    return Score(name, "max" if told == "max" else "min", compute)


def _loss(adapter: KerasAdapter, loss: Any) -> Callable[[Array, Array], float]:
    several = list(_flat(loss))
    if len(several) != 1:
        raise InputError(
            f"Expected a model that is compiled with one loss, to search by it. Received: {len(several)}. Search by the divergence."
        )
    function = adapter.keras.losses.get(several[0])

    def compute(truth: Array, predictions: Array) -> float:
        if truth.ndim == predictions.ndim - 1 and predictions.shape[-1] == 1:
            truth = truth[..., np.newaxis]  # as fit does: (n,) against (n, 1) would give (n, n)
        return float(np.mean(_numpy(adapter.keras, function(truth, _as_keras_has(predictions)))))

    return compute


def _as_keras_has(predictions: Array) -> Array:
    """Predictions as a model gives them: those of the model of errors are float64, which not every metric takes."""
    return predictions.astype(np.float32) if predictions.dtype == np.float64 else predictions


def _numpy(keras: Any, value: Any) -> Array:
    convert = getattr(getattr(keras, "ops", None), "convert_to_numpy", np.asarray)  # tf_keras has no ops
    return np.asarray(convert(value))
