"""Files in float32 against the model."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

import keras_precision as kp
from generated import oracle
from generated.builder import predict
from generated.trial import Array, Trial, Violation, file_names

__all__ = ["check_float_onnx", "check_float_openvino", "check_float_tflite", "check_input_order"]

TOLERANCE = 1e-5
"""Of the largest magnitude of an output."""

_FEW = 16
"""Samples: an operator that is wrong is wrong for most of them."""


def check_float_tflite(trial: Trial) -> None:
    """LiteRT computes from the file what the model computes."""
    _check(trial, lambda: trial.tflite("float32"), oracle.run_tflite)


def check_float_onnx(trial: Trial) -> None:
    """ONNX Runtime computes from the file what the model computes."""
    _check(trial, lambda: trial.file(kp.export_onnx, ".onnx", "float32"), oracle.run_onnx)


def check_float_openvino(trial: Trial) -> None:
    """OpenVINO computes from the file, in float32, what the model computes."""
    _check(trial, lambda: trial.file(kp.export_openvino, ".xml", "float32"), oracle.run_openvino)


def check_input_order(trial: Trial) -> None:
    """The inputs of a file are in the order of the model, and have its names."""
    names = oracle.input_names(trial.tflite("float32"))
    if names != file_names(trial.model):
        raise Violation(f"inputs {names}, where the model has {file_names(trial.model)}")


def _check(trial: Trial, file: Callable[[], Path], run: Callable[[Path, dict[str, Array]], list[Array]]) -> None:
    expected = [output[:_FEW] for output in trial.expected]
    samples = {name: values[:_FEW] for name, values in trial.file_inputs.items()}
    received = run(file(), samples)
    error = oracle.error_of(expected, received)
    if not error <= TOLERANCE and not error <= (floor := 8 * _rounding(trial)):
        raise Violation(f"off by {error:.3g} of the largest output; rounding explains {floor:.3g}")


def _rounding(trial: Trial) -> float:
    """Return the change of the outputs when weights and samples change by one unit in the last place."""
    rng, model = np.random.default_rng(0), trial.exact
    weights = model.get_weights()
    samples = [_shaken(array[:_FEW], rng) for array in trial.subject.samples]
    try:
        model.set_weights([_shaken(array, rng) for array in weights])
        return oracle.error_of([output[:_FEW] for output in trial.expected], predict(model, samples))
    finally:
        model.set_weights(weights)


def _shaken(values: Array, rng: np.random.Generator) -> Array:
    if values.dtype != np.float32 or not values.size:
        return values
    return np.asarray(values * (1 + rng.choice([-1, 1], values.shape) * np.float32(2.0**-23)), np.float32)
