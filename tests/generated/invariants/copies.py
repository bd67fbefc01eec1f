"""Copies of a model that the package returns."""

import numpy as np

import keras_precision as kp
from generated import oracle
from generated.builder import predict
from generated.trial import Skipped, Trial, Violation, file_names

__all__ = ["check_float32_plan", "check_quantize_aware"]


def check_float32_plan(trial: Trial) -> None:
    """A float32 model under a float32 training plan predicts the same, to the bit."""
    if trial.is_mixed:
        raise Skipped("a model in mixed precision")
    copy = trial.call(kp.apply_plan, trial.model, kp.PrecisionPlan.training("float32"))
    received = predict(copy, trial.subject.samples)
    for number, (expected, output) in enumerate(zip(trial.expected, received, strict=True)):
        if not np.array_equal(expected, output):
            error = oracle.error_of([expected], [output])
            raise Violation(f"output {number} is off by {error:.3g} of its largest value")


def check_quantize_aware(trial: Trial) -> None:
    """What a quantization-aware model predicts and what its file predicts differ by a step, in 99.5 % of values."""
    if trial.is_mixed:
        raise Skipped("a model in mixed precision")
    aware = trial.call(kp.quantize_aware, trial.model, "int8", representative_dataset=trial.packed_calibration)
    path = trial.folder / "aware.tflite"
    trial.call(kp.export_tflite, aware, path, None, trial.packed_calibration)
    samples = dict(zip(file_names(aware), trial.subject.samples, strict=True))
    expected, received = predict(aware, trial.subject.samples), oracle.run_tflite(path, samples)
    for number, (output, values, step) in enumerate(zip(expected, received, oracle.output_steps(path), strict=True)):
        limit = 1.01 * step if step else 1e-4 * np.abs(output).max()
        share = float(np.mean(np.abs(values.reshape(output.shape) - output) <= limit))
        if share < 0.995:
            raise Violation(f"output {number}: {share:.1%} of values are within a step of {step:.3g}")
