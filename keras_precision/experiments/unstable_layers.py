"""find_unstable_layers: bisection for the layers that must stay in float32."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from keras_precision._adapters import adapter_of
from keras_precision._adapters.layer_paths import layer_paths
from keras_precision.core.errors import InputError, ModelError
from keras_precision.core.plan import PrecisionPlan, check_precision
from keras_precision.core.result import Measurement, Result
from keras_precision.experiments.task import check_data, is_arrays, load_data
from keras_precision.mixed_precision.apply_plan import apply_plan

__all__ = ["find_unstable_layers", "smallest_high"]


def find_unstable_layers(
    build: Any,
    data: Any,
    precision: str = "mixed_float16",
    *,
    tolerance: float = 0.1,
    epochs: int = 1,
    batch_size: int = 32,
) -> Result:
    """Find the smallest set of layers that must stay in float32 for a training to match its baseline.

    The model is built once. A run trains a copy of it, with the same weights and the same batches in the same order, in
    which some layers are in lower precision. It is stable if its final loss is finite, and at most ``tolerance`` above that
    of the run in float32. Layers are located one by one, by bisection: k of n in about k log2(n) + k + 2 runs.

    Args:
        build: A function that returns a compiled functional or sequential model.
        data: ``(x, y)`` or ``(x, y, weights)`` of arrays, a dataset that can be iterated repeatedly, or a
            function that returns one of them.
        precision: The lower precision: ``"mixed_float16"`` or ``"mixed_bfloat16"``.
        tolerance: How much higher the loss may be, as a share of the baseline's.
        epochs: Epochs of a run.
        batch_size: Samples a batch, where the data are arrays.

    Returns:
        A result whose ``plan`` has all other layers in lower precision, with the reasons; its rows are, for every run
        (``run 1``, ...), the number of layers in lower precision, the loss, and whether it was stable. The baseline is the
        run ``baseline``.

    Raises:
        InputError: ``build`` is no function, or a number cannot be used.
        UnknownPrecisionError: ``precision`` is no training precision.
        DataError: There are no data.
        ModelError: The model is not compiled, or cannot be copied, or its own baseline has no finite loss.

    Example:
        >>> def build():
        ...     import keras
        ...     model = keras.Sequential([keras.Input((4,)), keras.layers.Rescaling(1e9), keras.layers.Dense(1, name="head")])
        ...     model.compile(keras.optimizers.SGD(1e-24), "mse")
        ...     return model
        >>> result = find_unstable_layers(build, (x_test, y_test), batch_size=64)
        >>> result.plan.default, result.plan.precision_of("rescaling")
        ('mixed_float16', 'float32')
    """
    _check(build, precision, tolerance, epochs, batch_size)
    check_data(data, "data")
    trials = _BisectionRuns(build(), data, precision, epochs, batch_size)
    trials.limit = trials.baseline() * (1 + tolerance) + 1e-7
    unstable = smallest_high(trials.names, trials.is_stable)
    reasons = dict.fromkeys(unstable, f"training diverges from the baseline with this layer in {precision}")
    plan = PrecisionPlan.training(precision, dict.fromkeys(unstable, "float32"), reasons)
    environment = trials.adapter.compute.environment()
    notes = (f"{trials.count} runs and a baseline, for {len(unstable)} of {len(trials.names)} layers.",)
    return Result("unstable layers", tuple(trials.rows), environment, plan, notes)


def _check(build: Any, precision: str, tolerance: float, epochs: int, batch_size: int) -> None:
    check_precision(precision, "training", "precision")
    if not callable(build) or hasattr(build, "fit"):
        raise InputError(f"Expected a function that returns a compiled model. Received: {type(build).__name__}.")
    if not isinstance(tolerance, int | float) or not tolerance >= 0:
        raise InputError(f"Expected tolerance to be a number >= 0. Received: {tolerance!r}.")
    for name, count in (("epochs", epochs), ("batch_size", batch_size)):
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            raise InputError(f"Expected {name} to be a whole number >= 1. Received: {count!r}.")


class _BisectionRuns:
    """Trainings of copies of one model in different plans."""

    def __init__(self, model: Any, data: Any, precision: str, epochs: int, batch_size: int) -> None:
        self.adapter = adapter_of(model)
        if getattr(model, "optimizer", None) is None or not model.built:
            raise ModelError(f"Expected build to return a model that is built and compiled. Received: '{model.name}'.")
        self.names = list(layer_paths(model))
        self.rows: list[Measurement] = []
        self.count, self.limit = 0, math.inf
        self._model, self._data, self._precision = model, data, precision
        self._epochs, self._batch_size = epochs, batch_size

    def baseline(self) -> float:
        """Run in float32; return the final loss."""
        loss = self._loss(PrecisionPlan.training("float32"))
        self.rows.append(Measurement("baseline", "loss", loss))
        if not math.isfinite(loss):
            raise ModelError(
                f"Expected a model that trains in float32. Received: '{self._model.name}', whose loss there is {loss}. "
                "kp.diagnose(model, data) locates the fault."
            )
        return loss

    def is_stable(self, low: Sequence[str]) -> bool:
        """Run with some layers in lower precision."""
        self.count += 1
        high = dict.fromkeys([name for name in self.names if name not in set(low)], "float32")
        loss = self._loss(PrecisionPlan.training(self._precision, high))
        stable = math.isfinite(loss) and loss <= self.limit
        subject = f"run {self.count}"
        self.rows.append(Measurement(subject, "lowered_layers", len(low)))
        self.rows.append(Measurement(subject, "loss", loss))
        self.rows.append(Measurement(subject, "stable", stable))
        return stable

    def _loss(self, plan: PrecisionPlan) -> float:
        """Train a copy in a plan; return its final loss on the same data."""
        model, data = apply_plan(self._model, plan), load_data(self._data)
        with np.errstate(all="ignore"):
            if not is_arrays(data):
                model.fit(data, epochs=self._epochs, verbose=0)
                return _loss_of(model.evaluate(data, verbose=0, return_dict=True))
            x, y, *weights = data
            weight = weights[0] if weights else None
            settings = {"sample_weight": weight, "batch_size": self._batch_size, "verbose": 0}
            model.fit(x, y, epochs=self._epochs, shuffle=False, **settings)
            return _loss_of(model.evaluate(x, y, return_dict=True, **settings))


def _loss_of(scores: Any) -> float:
    return float(scores["loss"])


def smallest_high(names: Sequence[str], is_stable: Callable[[Sequence[str]], bool]) -> list[str]:
    """Return the layers that must stay in high precision, in the order of their discovery.

    While all remaining layers in low precision are unstable, bisection finds the shortest unstable prefix, whose last layer
    stays high. Prefixes known to be stable do not run again: k layers of n take about k log2(n) + k + 1 runs. A set is taken
    to be unstable if a part of it is. ``is_stable`` runs with these layers low, and all others high.

    Example:
        >>> runs = []
        >>> def is_stable(low):
        ...     runs.append(low)
        ...     return not {"f", "k"} & set(low)
        >>> smallest_high("abcdefghijklmnop", is_stable), len(runs)
        (['f', 'k'], 11)
    """
    high: list[str] = []
    low = list(names)
    stable = 0  # the first so many layers are known to be stable together
    while len(low) > stable and not is_stable(low):
        unstable = len(low)
        while unstable - stable > 1:
            middle = (stable + unstable) // 2
            if is_stable(low[:middle]):
                stable = middle
            else:
                unstable = middle
        high.append(low.pop(unstable - 1))
    return high
