"""RestartedLoss: the loss of a single batch out of a compiled step, by beginning its mean anew."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from keras_precision._adapters.training.batch_loss import BatchLoss
from keras_precision._adapters.training.train_function import Around, put, take_away
from keras_precision.core.system.optional import require

__all__ = ["restarted_mean"]


@contextmanager
def restarted_mean(model: Any, tracker: Any, *, in_state: bool = False) -> Iterator[BatchLoss]:
    """Tell the loss of each batch behind the first that is not finite: Keras on TensorFlow and on JAX.

    Args:
        model: The model, in a ``fit`` that has begun.
        tracker: The metric that averages its loss.
        in_state: Whether the variables travel through the step as a state, as on JAX.

    Yields:
        The loss of the last batch.
    """
    step = _InState(model, tracker) if in_state else _InVariables(model, tracker)
    try:
        yield step
    finally:
        take_away(model, step)


class _Restarted(Around, BatchLoss):
    """Sets the mean to nothing before a step, and after it to what it would have been, which the logs are given, too.

    It costs nothing, and is not even there, until a mean has turned to NaN or infinity.
    """

    source = "by the batch's own loss, with the mean begun anew for each step"

    def __init__(self, model: Any, tracker: Any) -> None:
        super().__init__()
        self.model, self.tracker = model, tracker
        self.is_armed = False
        self.loss: float | None = None

    def take(self) -> float | None:
        """Return the loss of the last batch; the first call, behind the batch that turned the mean, knows none."""
        loss, self.loss = self.loss, None
        if not self.is_armed:
            self.is_armed = True
            put(self.model, self)
        return loss

    def rest(self) -> None:
        """Leave the steps alone until the mean turns again: Keras begins a new one."""
        self.is_armed, self.loss = False, None

    def give_up(self) -> None:
        """Leave the model as it was: a step has raised, be it at the end of data of unknown length or for good."""
        self.rest()
        take_away(self.model, self)

    def _continued(self, before: Sequence[Any], after: Sequence[Any]) -> list[Any]:
        """Total and count as they would be; the loss of this step is noted."""
        total, count = (float(each) for each in after)
        self.loss = total / count if count else None
        with np.errstate(invalid="ignore"):  # infinity less infinity
            return [np.asarray(old) + np.asarray(new) for old, new in zip(before, after, strict=True)]


class _InVariables(_Restarted):
    def __call__(self, *arguments: Any) -> Any:
        if not self.is_armed:
            return self.inner(*arguments)
        before = self._mean()
        self._put_back([np.zeros((), each.dtype) for each in before])
        try:
            logs = self.inner(*arguments)
        except BaseException:
            # The end of data of unknown length comes as an error, and Keras reads the epoch's mean behind it.
            self._put_back(before)
            self.give_up()
            raise
        self._put_back(self._continued(before, self._mean()))
        return {**logs, "loss": self.tracker.result()} if isinstance(logs, dict) and "loss" in logs else logs

    def _mean(self) -> list[Any]:
        """Total and count, as they are now."""
        return [np.array(each) for each in (self.tracker.total, self.tracker.count)]

    def _put_back(self, mean: Sequence[Any]) -> None:
        for variable, value in zip((self.tracker.total, self.tracker.count), mean, strict=True):
            variable.assign(value)


class _InState(_Restarted):
    def __call__(self, state: Any, iterator: Any) -> Any:
        if not self.is_armed:
            return self.inner(state, iterator)
        variables = list(map(id, self.model.metrics_variables))
        places = [variables.index(id(each)) for each in (self.tracker.total, self.tracker.count)]
        *others, metrics = state
        before = [metrics[place] for place in places]
        begun = _with(metrics, places, [0 * np.nan_to_num(np.asarray(each)) for each in before])
        try:
            logs, (*others, metrics) = self.inner((*others, begun), iterator)
        except BaseException:
            self.give_up()
            raise
        mean = self._continued(before, [metrics[place] for place in places])
        if "loss" in logs:
            logs = {**logs, "loss": mean[0] / mean[1]}
        return logs, (*others, _with(metrics, places, mean))


def _with(metrics: Sequence[Any], places: Sequence[int], values: Sequence[Any]) -> list[Any]:
    """The state of the metrics, with other arrays in these places, as the framework's own."""
    jax = require("jax", extra="jax")
    changed = list(metrics)
    for place, value in zip(places, values, strict=True):
        array = metrics[place]
        changed[place] = jax.device_put(np.asarray(value, array.dtype), array.sharding)
    return changed
