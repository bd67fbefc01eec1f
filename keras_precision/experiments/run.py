"""Run: one training in a child process."""

import ctypes
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_precision._adapters import KerasAdapter, adapter_of, adapters_in_use
from keras_precision._adapters.model_file.load_model import load_compiled_model
from keras_precision._adapters.tracing.backend_trace import traced
from keras_precision._adapters.tracing.device_time import computing_ms
from keras_precision._adapters.training.callback import Callback, Logs
from keras_precision.callbacks.profiler import PrecisionProfiler
from keras_precision.core.errors import DataError, InputError, ModelError, nearest
from keras_precision.core.plan import PrecisionPlan
from keras_precision.core.result import Measurement, Result
from keras_precision.experiments.channel import Channel
from keras_precision.experiments.fingerprints import configuration_hash, data_hash, weights_hash
from keras_precision.experiments.onednn_log import BEGIN, END
from keras_precision.experiments.task import Task, import_function, is_arrays, load_data, map_arrays
from keras_precision.mixed_precision.apply_plan import apply_plan
from keras_precision.mixed_precision.policy import precision as in_precision
from keras_precision.scoring.scores import predicted_classes

__all__ = ["Run", "build_in_precision"]

_ENDLESS = 10**9
_TRACED_STEPS = 5


class Run:
    """One training of a task in one precision (a policy or a training plan), from one seed for weights, data order and dropout."""

    def __init__(self, channel: Channel, task: Task, name: str, precision: str | PrecisionPlan, seed: int) -> None:
        self._channel, self._task, self._name, self._seed = channel, task, name, seed
        self._model = build_in_precision(task.build, precision, seed)
        self._adapter = adapter_of(self._model)
        self._data = self._ordered(load_data(task.train_data))
        self._metric = ""

    def prepare(self) -> dict[str, str]:
        """Return the compared metric, and the hashes that must be equal between runs."""
        settings = {
            "batch_size": self._task.batch_size, "epochs": self._task.epochs, "steps": self._task.steps,
            "callbacks": [type(callback).__qualname__ for callback in self._callbacks()],
        }  # fmt: skip
        if not self._model.built:
            raise ModelError(
                f"Expected build to return a built model. Received: '{self._model.name}', whose input shape is not known. Add an Input."
            )
        self._metric = self._compared_metric()
        return {
            "metric": self._metric,
            "initial_weights": weights_hash(self._model),
            "data_order": data_hash(self._data),
            "configuration": configuration_hash(self._adapter, self._model, settings),
        }

    def train(self) -> Result:
        """Train, and return the profile with the final metric and the accuracy per class."""
        self._metric = self._metric or self._compared_metric()
        _seed(self._seed)
        profiler = PrecisionProfiler(self._name, verbose=0)
        counter = _Counter(self._task.steps)
        epochs = self._task.epochs if self._task.steps is None else self._task.steps
        validation = load_data(self._task.validation_data)
        self._fit([*self._callbacks(), profiler, counter], epochs=epochs, validation_data=validation)
        counter.check(self._task)
        result = profiler.result
        return result.with_measurements([*self._final(result), *self._classes(validation)])

    def train_interleaved(self, count: int) -> None:
        """Train ``count`` steps, then a block on every request of the parent; the reply to a block is its step times."""
        _seed(self._seed)
        start, blocks = _StepStart(), _BlockTimer(self._channel, self._adapter, count)
        blocks.start = start
        while not blocks.stopped:
            before = blocks.steps
            self._fit([start, *self._callbacks(), blocks], epochs=_ENDLESS, whole=True)
            if blocks.steps == before:
                raise DataError(
                    "Expected training data for another epoch. Received: data that have run out. Pass a function that creates them."
                )
            if not blocks.stopped:  # a generator that is exhausted
                self._data = self._ordered(load_data(self._task.train_data))

    def trace(self, folder: str) -> tuple[float, float | None]:
        """Write the backend's trace of a few compiled steps; return their milliseconds, and those on the device or None."""
        _seed(self._seed)
        self._fit([_Counter(_TRACED_STEPS)], epochs=_ENDLESS, whole=True)
        _mark(BEGIN)
        backend = self._adapter.compute.name
        with traced(backend, Path(folder)):
            began = time.perf_counter()
            self._fit([_Counter(_TRACED_STEPS)], epochs=_ENDLESS, whole=True)
            elapsed = time.perf_counter() - began
        _mark(END)
        return elapsed * 1e3, computing_ms(backend, Path(folder))

    def _fit(self, callbacks: Sequence[Any], *, whole: bool = False, **settings: Any) -> None:
        """Fit in the order of the data; ``whole`` drops the partial batch, which would be compiled again."""
        data, size = self._data, self._task.batch_size
        settings |= {"shuffle": False, "verbose": 0, "callbacks": list(callbacks)}
        if not is_arrays(data):
            self._model.fit(data, **settings)
            return
        count = len(data[1]) // size * size if whole else 0
        x, y, *weights = map_arrays(lambda array: array[:count], data) if count else data
        if weights:
            settings["sample_weight"] = weights[0]
        self._model.fit(x, y, batch_size=size, **settings)

    def _ordered(self, data: Any) -> Any:
        """Return arrays in an order by the seed, the same in every precision, and datasets unchanged."""
        _seed(self._seed)
        if not is_arrays(data):
            return data
        order = np.random.default_rng(self._seed).permutation(len(data[1]))
        return map_arrays(lambda array: np.asarray(array)[order], tuple(data))

    def _callbacks(self) -> list[Any]:
        callbacks = self._task.callbacks
        function = import_function(callbacks) if isinstance(callbacks, str) else callbacks
        return [] if function is None else list(function(self._name))

    def _compared_metric(self) -> str:
        """Return the requested metric, or the first one that is no loss."""
        known = [name for name in self._first_scores() if name != "loss"]
        name = (self._task.metric or (known[0] if known else "loss")).removeprefix("val_")
        if name not in (*known, "loss"):
            hint = nearest(name, known) or "Add it to compile(metrics=[...])."
            raise InputError(
                f"Expected a metric that the model is compiled with: {', '.join([*known, 'loss'])}. Received: '{name}'. {hint}"
            )
        return f"val_{name}"

    def _first_scores(self) -> dict[str, float]:
        data, size = load_data(self._task.validation_data), self._task.batch_size
        if not is_arrays(data):
            return dict(self._model.evaluate(data, steps=1, verbose=0, return_dict=True))
        x, y, *_ = map_arrays(lambda array: array[:size], data)
        return dict(self._model.evaluate(x, y, batch_size=size, verbose=0, return_dict=True))

    def _final(self, result: Result) -> Iterator[Measurement]:
        """Yield the final metric, and whether the run diverged."""
        yield Measurement("fit", self._metric, result.series(self._metric, "epoch")[1][-1])
        losses = result.series("loss", "epoch")[1]
        finite = np.isfinite(losses[-1]) and all(np.isfinite(array).all() for array in self._model.get_weights())
        yield Measurement("fit", "diverged_share", 0.0 if finite else 1.0)
        if is_arrays(self._data):
            yield Measurement("fit", "batch_size", min(self._task.batch_size, len(self._data[1])))

    def _classes(self, data: Any) -> Iterator[Measurement]:
        """Yield the accuracy per class of a classifier."""
        if not is_arrays(data):
            return
        labels = _class_numbers(np.asarray(data[1]))
        if labels is None:
            return
        predictions = self._adapter.predict(self._model, data[0], self._task.batch_size)
        if (
            not isinstance(predictions, np.ndarray)
            or predictions.ndim != 2
            or labels.max() >= max(2, predictions.shape[-1])
        ):
            return
        correct = predicted_classes(predictions) == labels
        for number in np.unique(labels):
            yield Measurement(f"class {number}", "class_accuracy", float(correct[labels == number].mean()))


class _Counter(Callback):
    """Counts the batches of every epoch, and stops after enough of them, or when the data run out."""

    def __init__(self, steps: int | None) -> None:
        super().__init__()
        self._steps, self._epochs, self._begun = steps, [0], 0
        self._ran_out = False

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Begin to count."""
        self._epochs.append(0)

    def on_train_batch_begin(self, batch: int, logs: Logs = None) -> None:
        """Record the number of the batch."""
        self._begun = batch

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Count, and stop after the last step."""
        self._epochs[-1] += max(1, batch - self._begun + 1)
        if self._done:
            self.model.stop_training = True

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Stop where an epoch is shorter than the first: Keras 3 goes on with batches that it has peeked at."""
        if not self._done and self._epochs[-1] < max(1, self._epochs[1]):
            self._ran_out = self.model.stop_training = True

    @property
    def _done(self) -> bool:
        return self._steps is not None and sum(self._epochs) >= self._steps

    def check(self, task: Task) -> None:
        """Raise if the data ended too early."""
        if self._ran_out:
            expected = f"{task.epochs} epochs" if task.steps is None else f"{task.steps} training steps"
            raise DataError(
                f"Expected data for {expected}. Received: data that ended after {self._epochs[1]} steps. Give a dataset "
                "that can be read again, or request fewer."
            )


class _StepStart(Callback):
    """The first callback of the list: records when a step begins."""

    began = 0
    batch = 0

    def on_train_batch_begin(self, batch: int, logs: Logs = None) -> None:
        """Record the time."""
        self.batch, self.began = batch, time.perf_counter_ns()


class _BlockTimer(Callback):
    """The last callback of the list: times steps, and waits for the next request after a block."""

    def __init__(self, channel: Channel, adapter: KerasAdapter, count: int) -> None:
        super().__init__()
        self.start = _StepStart()
        self.steps, self.stopped = 0, False
        self._channel, self._adapter, self._count = channel, adapter, count
        self._times: list[float] = []
        self._compilations = 0

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Record the time of a step unless it compiled; after a block, reply and wait."""
        elapsed = (time.perf_counter_ns() - self.start.began) / 1e6
        self.steps += 1
        compilations = self._adapter.compute.compilations(self.model)
        if compilations == self._compilations:
            self._times.append(elapsed / max(1, batch - self.start.batch + 1))
        self._compilations = compilations
        if len(self._times) >= self._count:
            self._next_block()

    def _next_block(self) -> None:
        self._channel.reply(self._times)
        request, args = self._channel.receive()
        self._times = []
        if request == "stop":
            self.stopped = self.model.stop_training = True
        else:
            (self._count,) = args


def _mark(line: str) -> None:
    """Write a line to the log, after everything that C code has buffered."""
    ctypes.CDLL(None).fflush(None)
    os.write(2, f"\n{line}\n".encode())


def build_in_precision(build: Any, precision: str | PrecisionPlan, seed: int) -> Any:
    """Return a compiled model in a policy or a training plan.

    ``build`` is a function, ``"module:function"``, or the path of a ``.keras`` file; the seed is that of the weights.
    """
    if isinstance(build, Path):
        plan = precision if isinstance(precision, PrecisionPlan) else PrecisionPlan.training(precision)
        return _compiled(apply_plan(load_compiled_model(build), plan, in_place=True))
    function = import_function(build) if isinstance(build, str) else build
    policy = "float32" if isinstance(precision, PrecisionPlan) else precision
    model = _build_in_policy(function, policy, seed)
    if isinstance(precision, PrecisionPlan):
        return apply_plan(_compiled(model), precision, in_place=True)
    return _compiled(model)


def _build_in_policy(function: Any, policy: str, seed: int) -> Any:
    had_tf_keras = "tf_keras" in sys.modules
    model = _build_once(function, policy, seed)
    # The first call may import tf_keras, whose policy was not set yet: then build again.
    return model if had_tf_keras or "tf_keras" not in sys.modules else _build_once(function, policy, seed)


def _build_once(function: Any, policy: str, seed: int) -> Any:
    _seed(seed)
    with in_precision(policy):
        return function()


def _compiled(model: Any) -> Any:
    adapter = adapter_of(model)
    if not adapter.is_model(model) or getattr(model, "optimizer", None) is None:
        raise ModelError(
            f"Expected build to return a compiled model. Received: {type(model).__name__}, not compiled. Call model.compile in build."
        )
    return model


def _seed(seed: int) -> None:
    for adapter in adapters_in_use():
        adapter.keras.utils.set_random_seed(seed)


def _class_numbers(labels: npt.NDArray[Any]) -> npt.NDArray[Any] | None:
    """Return labels as class numbers; None where they are something else."""
    if labels.ndim == 2 and labels.shape[1] > 1:
        one_hot = np.isin(labels, (0, 1)).all() and (labels.sum(axis=1) == 1).all()
        return np.asarray(labels.argmax(axis=1)) if one_hot else None
    flat = labels.reshape(len(labels), -1)
    whole = flat.shape[1] == 1 and flat.dtype.kind in "biu"
    return np.asarray(flat[:, 0]).astype(np.int64) if whole else None
