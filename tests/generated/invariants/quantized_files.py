"""Quantized files against each other, and against TFLiteConverter's."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from generated import oracle
from generated.trial import Array, Skipped, Trial, Violation

__all__ = ["check_auto_calibration", "check_bias_correction", "check_equalization", "check_int8", "check_int16x8"]

ALLOWED = 1.1
"""The divergence that counts as no worse: at most 10 % more."""


def check_int8(trial: Trial) -> None:
    """The int8 file diverges no more than that of plain TFLiteConverter, whose inputs and outputs are floats."""
    file, path = trial.tflite("int8", io="float32"), trial.folder / "plain.tflite"
    try:
        trial.announce("by hand: TFLiteConverter")
        oracle.converted_int8(trial.exact, trial.subject.calibration, path)
        plain = oracle.run_tflite(path, _numbered(trial.subject.samples))
    except Exception as error:
        raise Skipped(f"TFLiteConverter: {type(error).__name__}: {str(error)[-300:]}") from error
    _compare(trial, file, plain, ALLOWED)


def check_int16x8(trial: Trial) -> None:
    """16-bit activations diverge no more than those of 8 bits."""
    _compare(trial, trial.tflite("int16x8"), _outputs(trial, trial.tflite("int8")), 1.0)


def check_bias_correction(trial: Trial) -> None:
    """The correction of biases makes no output worse."""
    without = trial.tflite("int8", calibration="minmax", bias_correction=False)
    _compare(trial, trial.tflite("int8", calibration="minmax"), _outputs(trial, without), ALLOWED)


def check_auto_calibration(trial: Trial) -> None:
    """The method that is chosen makes no output worse than the plain one."""
    _compare(trial, trial.tflite("int8"), _outputs(trial, trial.tflite("int8", calibration="minmax")), ALLOWED)


def check_equalization(trial: Trial) -> None:
    """Scaled pairs of layers make no output worse."""
    import keras_precision as kp

    equalized = trial.call(kp.calibrate, trial.model, trial.packed_calibration, cross_layer_equalization=True)
    if not equalized.float_file.equalized_pairs:
        raise Skipped("no pair")
    path = trial.file(
        kp.export_tflite, ".tflite", "int8", equalized, calibration="minmax", cross_layer_equalization=True
    )
    _compare(trial, path, _outputs(trial, trial.tflite("int8", calibration="minmax")), ALLOWED)


def _numbered(arrays: Sequence[Array]) -> dict[str, Array]:
    return {f"input_{number}": array for number, array in enumerate(arrays)}


def _outputs(trial: Trial, path: Path) -> list[Array]:
    return oracle.run_tflite(path, trial.file_inputs)


def _compare(trial: Trial, path: Path, others: Sequence[Array], allowed: float) -> None:
    """Raise where the file diverges more on an output than the others, beyond what rounding that output alone does."""
    for number, (expected, output, other) in enumerate(zip(trial.expected, _outputs(trial, path), others, strict=True)):
        if np.ptp(expected) <= 1e-6 * np.abs(expected).max():
            continue  # a constant
        received, reference = oracle.noise_power(expected, output), oracle.noise_power(expected, other)
        floor = _floor(expected)
        if received > allowed * reference + floor:
            raise Violation(
                f"output {number}: divergence {received:.3g}, against {reference:.3g}, a ratio of {received / max(reference, floor):.2f}"
            )


def _floor(expected: Array) -> float:
    """Return the divergence of an output that is off by one step of eight bits everywhere."""
    wide = expected.astype("float64").reshape(len(expected), -1)
    variance = np.square(wide - wide.mean(axis=0)).mean()
    return float((np.ptp(wide) / 255) ** 2 / variance)
