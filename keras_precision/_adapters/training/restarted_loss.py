"""The loss of a single batch from a compiled step, by restarting the mean that Keras reports."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from keras_precision._adapters.training.batch_loss import BatchLoss
from keras_precision._adapters.training.train_function import TrainFunctionWrapper, unwrap, wrap
from keras_precision.core.system.optional import require

__all__ = ["restart_mean"]


@contextmanager
def restart_mean(model: Any, tracker: Any, *, in_state: bool = False) -> Iterator[BatchLoss]:
    """Read the loss of every batch after the first that is not finite: Keras on TensorFlow and, with ``in_state``, JAX."""
    step = _InState(model, tracker) if in_state else _InVariables(model, tracker)
    try:
        yield step
    finally:
        unwrap(model, step)


class _Restarted(TrainFunctionWrapper, BatchLoss):
    """Resets the mean before a step; afterwards restores what it would have been, in the logs, too.

    It is not in the chain of train functions until a mean has become NaN or infinite.
    """

    # Keras reports the mean of an epoch, in which one NaN hides all later losses. Total and count of the metric Mean are
    # public: https://github.com/keras-team/keras/blob/v3.15.1/keras/src/metrics/reduction_metrics.py
    source = "by the batch's own loss, with the mean restarted for every step"

    def __init__(self, model: Any, tracker: Any) -> None:
        super().__init__()
        self.model, self.tracker = model, tracker
        self.is_armed = False
        self.loss: float | None = None

    def take(self) -> float | None:
        """Return the loss of the last batch; None in the first call, after the batch that made the mean NaN."""
        loss, self.loss = self.loss, None
        if not self.is_armed:
            self.is_armed = True
            wrap(self.model, self)
        return loss

    def rest(self) -> None:
        """Pause until the mean is NaN or infinite again: Keras starts a new one."""
        self.is_armed, self.loss = False, None

    def give_up(self) -> None:
        """Restore the model after a step that raised, be it only at the end of data of unknown length."""
        self.rest()
        unwrap(self.model, self)

    def _continued(self, before: Sequence[Any], after: Sequence[Any]) -> list[Any]:
        """Return total and count as they would be without the reset, and note the loss of this step."""
        total, count = map(float, after)
        self.loss = total / count if count else None
        with np.errstate(invalid="ignore"):  # infinity minus infinity
            return [np.asarray(old) + np.asarray(new) for old, new in zip(before, after, strict=True)]


class _InVariables(_Restarted):
    def __call__(self, *arguments: Any) -> Any:
        if not self.is_armed:
            return self.inner(*arguments)
        before = self._mean()
        self._restore([np.zeros((), value.dtype) for value in before])
        try:
            logs = self.inner(*arguments)
        except BaseException:
            # The end of data of unknown length is an error, after which Keras reads the mean of the epoch.
            self._restore(before)
            self.give_up()
            raise
        self._restore(self._continued(before, self._mean()))
        return {**logs, "loss": self.tracker.result()} if isinstance(logs, dict) and "loss" in logs else logs

    def _mean(self) -> list[Any]:
        """Return total and count."""
        return [np.array(variable) for variable in (self.tracker.total, self.tracker.count)]

    def _restore(self, mean: Sequence[Any]) -> None:
        for variable, value in zip((self.tracker.total, self.tracker.count), mean, strict=True):
            variable.assign(value)


class _InState(_Restarted):
    def __call__(self, state: Any, iterator: Any) -> Any:
        if not self.is_armed:
            return self.inner(state, iterator)
        variables = list(map(id, self.model.metrics_variables))
        places = [variables.index(id(variable)) for variable in (self.tracker.total, self.tracker.count)]
        *others, metrics = state
        before = [metrics[place] for place in places]
        reset = _with(metrics, places, [0 * np.nan_to_num(np.asarray(value)) for value in before])
        try:
            logs, (*others, metrics) = self.inner((*others, reset), iterator)
        except BaseException:
            self.give_up()
            raise
        mean = self._continued(before, [metrics[place] for place in places])
        if "loss" in logs:
            logs = {**logs, "loss": mean[0] / mean[1]}
        return logs, (*others, _with(metrics, places, mean))


def _with(metrics: Sequence[Any], places: Sequence[int], values: Sequence[Any]) -> list[Any]:
    """Return the state of the metrics with other JAX arrays in these places."""
    jax = require("jax", extra="jax")
    changed = list(metrics)
    for place, value in zip(places, values, strict=True):
        array = metrics[place]
        changed[place] = jax.device_put(np.asarray(value, array.dtype), array.sharding)
    return changed
