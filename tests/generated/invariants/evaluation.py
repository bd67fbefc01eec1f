"""Figures of ``kp.evaluate``: the same for every form of data, and those of NumPy."""

from collections.abc import Iterator
from typing import Any

import numpy as np

import keras_precision as kp
from generated import oracle
from generated.builder import predict
from generated.trial import Array, Trial, Violation

__all__ = ["check_figures", "check_forms"]


def check_forms(trial: Trial) -> None:
    """A list, a tuple, a dict and a dataset give the same figures, of the model and of its file."""
    for target in _targets(trial):
        figures = {form: _figures(trial, target, x, y) for form, x, y in _forms(trial, target)}
        first_form, first = next(iter(figures.items()))
        for form, others in figures.items():
            if not np.allclose(first, others, rtol=1e-4, atol=1e-9):
                raise Violation(f"{_called(target)}: {first} as {first_form}, {others} as {form}")


def check_figures(trial: Trial) -> None:
    """The mean squared error is NumPy's, of predictions by the runtime itself."""
    labels = _labels(trial)
    for target in _targets(trial):
        x = tuple(trial.subject.samples) if len(trial.subject.samples) > 1 else trial.subject.samples[0]
        received = _figures(trial, target, x, labels if len(labels) > 1 else labels[0])
        if target is trial.model:
            outputs = predict(trial.model, trial.subject.samples)
        else:
            outputs = oracle.run_tflite(target, trial.file_inputs)
        expected = [
            float(np.square(values.astype("float64").reshape(y.shape) - y).mean())
            for values, y in zip(outputs, labels, strict=True)
        ]
        if not np.allclose(expected, received, rtol=2e-3, atol=1e-7):
            raise Violation(f"{_called(target)}: {received}, where NumPy has {expected}")


def _targets(trial: Trial) -> Iterator[Any]:
    yield trial.model
    yield trial.tflite("int8" if trial.stack in ("tensorflow", "tf_keras") else "float32")


def _called(target: Any) -> str:
    return getattr(target, "suffix", "model")


def _figures(trial: Trial, target: Any, x: Any, y: Any) -> list[float]:
    count = len(trial.expected)
    metrics: Any = ["mse"] if count == 1 else [["mse"]] * count
    result = trial.call(kp.evaluate, target, x, y, metrics)
    return [float(row.value) for row in result.measurements if row.metric == "mean_squared_error"]


def _labels(trial: Trial) -> list[Array]:
    rng = np.random.default_rng(1)
    return [rng.normal(size=output.shape).astype("float32") for output in trial.expected]


def _forms(trial: Trial, target: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yield the name of a form, the samples and the labels, which a dataset brings along."""
    by_name = trial.by_name if target is trial.model else trial.file_inputs
    arrays, labels = trial.subject.samples, _labels(trial)
    y: Any = tuple(labels) if len(labels) > 1 else labels[0]
    if len(arrays) > 1:
        yield "tuple", tuple(arrays), y
        yield "list", list(arrays), y
    else:
        yield "array", arrays[0], y
    yield "dict", dict(reversed(by_name.items())), y
    yield "dataset", _dataset(trial, by_name, y), None


def _dataset(trial: Trial, samples: dict[str, Array], y: Any) -> Any:
    if trial.stack in ("tensorflow", "tf_keras"):
        import tensorflow

        return tensorflow.data.Dataset.from_tensor_slices((samples, y)).batch(7)

    class Batches(trial.keras.utils.PyDataset):  # type: ignore[misc,name-defined]
        def __len__(self) -> int:
            return 6

        def __getitem__(self, number: int) -> Any:
            rows = slice(8 * number, 8 * number + 8)
            labels = tuple(part[rows] for part in y) if isinstance(y, tuple) else y[rows]
            return {name: values[rows] for name, values in samples.items()}, labels

    return Batches()
