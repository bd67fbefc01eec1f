"""Standstill: whether a model whose loss does not fall puts out the same for every sample."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from keras_precision._adapters.layer_paths import paths_of, plan_of
from keras_precision._adapters.tracing.step_observer import Batch, StepObserver, random_state_preserved
from keras_precision._adapters.training.step_replay import Capture, capture_of
from keras_precision.callbacks.probes.probe import FitState
from keras_precision.core.errors import PrecisionError
from keras_precision.core.result import Measurement
from keras_precision.mixed_precision.apply_plan import apply_plan

__all__ = ["Standstill"]

_STILL = 0.01  # change of the loss from an epoch to the next, as a share of it
_LEARNED = 0.5  # of its first value: a loss below has fallen, and may rest
_MAX_LAYERS = 8  # lifted to float32
_SAME = 2.0**-16  # spread over the samples, as a share of the size: what no loss tells apart


class Standstill:
    """Records one batch after two epochs with almost the same loss, and looks at what the model makes of its samples, once."""

    def __init__(self, fit: FitState) -> None:
        self._fit, self._losses = fit, list[float]()
        self._capture: Capture | None = None
        self._batch: Batch | None = None
        self._done = False

    def step_begin(self) -> None:
        """Record the step that begins, where that is due."""
        if self._capture is not None:
            self._capture.step_begin()

    def step_end(self) -> None:
        """Take the batch of the recorded step."""
        if self._capture is not None and self._capture.batch is not None:
            self._batch = self._capture.batch
            self._capture.remove()
            self._capture = None

    def epoch_end(self) -> Iterator[Measurement]:
        """Yield what the batch shows, or begin to record one."""
        batch, self._batch, loss = self._batch, None, self._fit.loss
        if self._done or loss is None or not math.isfinite(loss):
            return
        if batch is not None:
            self._done = True
            with random_state_preserved():
                yield from self._look(batch)
            return
        self._losses.append(float(loss))
        if _is_still(self._losses):
            observer = StepObserver(self._fit.adapter, self._fit.model)
            capture = capture_of(observer.state, 1)
            if isinstance(capture, str):
                self._done = True
            else:
                self._capture = capture
                self._fit.resources.callback(capture.remove)

    def _look(self, batch: Batch) -> Iterator[Measurement]:
        """Compare the outputs of the samples, then those of the layers; then lift layers until they differ."""
        adapter, model, step = self._fit.adapter, self._fit.model, self._fit.batches
        inputs = [self._array(leaf) for leaf in adapter.flat(batch.x)]
        if all(map(_is_same, inputs)):
            yield Measurement("batch/inputs", "constant_outputs", len(inputs[0]), step)
            return
        if not self._are_same(model, batch):
            return
        path = self._first_still(model, batch)
        yield Measurement(path, "constant_outputs", len(inputs[0]), step)
        try:
            yield from (Measurement(lifted, "cured_in", "float32", step) for lifted in self._lifted(path, batch))
        except PrecisionError:  # it cannot be copied, or not in such a plan
            return

    def _first_still(self, model: Any, batch: Batch) -> str:
        """The first layer whose outputs are one number; the last layer where there is none."""
        calls = StepObserver(self._fit.adapter, model).observe(batch).calls
        still = (call.path for call in calls if call.outputs and all(not output.deviation for output in call.outputs))
        return next(still, list(paths_of(self._fit.adapter, model))[-1])

    def _lifted(self, path: str, batch: Batch) -> list[str]:
        """The layers with which the outputs differ, if these are in float32; none where no layer changes it."""
        plan, lifted = plan_of(self._fit.model), list[str]()
        while path not in lifted and len(lifted) < _MAX_LAYERS and plan.precision_of(path) != "float32":
            lifted.append(path)
            copy = apply_plan(self._fit.model, plan.with_layers(dict.fromkeys(lifted, "float32")))
            if not self._are_same(copy, batch):
                return lifted
            path = self._first_still(copy, batch)
        return []

    def _are_same(self, model: Any, batch: Batch) -> bool:
        outputs = self._fit.adapter.flat_arrays(model(batch.x, training=False))
        return all(map(_is_same, outputs))

    def _array(self, leaf: Any) -> Any:
        return self._fit.adapter.flat_arrays(leaf)[0]


def _is_same(array: Any) -> bool:
    """Whether an array is the same for two or more samples.

    Example:
        >>> _is_same(np.array([[1.0, 2.0], [1.0, 2.0]])), _is_same(np.array([[1.0, 2.0], [1.0, 2.1]]))
        (True, False)
    """
    rows = np.asarray(array, np.float64).reshape(len(array), -1)
    return len(rows) > 1 and bool((np.ptp(rows, axis=0) <= _SAME * np.abs(rows).max(axis=0)).all())


def _is_still(losses: Sequence[float]) -> bool:
    """Whether the last loss is about that before, and not much below the first.

    Example:
        >>> _is_still([1.0, 0.99, 0.985]), _is_still([1.0, 0.4, 0.4]), _is_still([1.0])
        (True, False, False)
    """
    if len(losses) < 2:
        return False
    first, before, last = abs(losses[0]), losses[-2], losses[-1]
    return abs(before - last) <= _STILL * abs(last) and abs(last) >= _LEARNED * first
