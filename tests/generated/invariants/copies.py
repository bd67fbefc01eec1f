"""Copies of a model that the package returns."""

import numpy as np

import keras_precision as kp
from generated import oracle
from generated.builder import predict
from generated.trial import Array, Skipped, Trial, Violation, file_names

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
    """What a quantization-aware model predicts and what its file predicts differ by a step, in 99.5 % of values.

    The file runs without delegates, whose rounding is their own. Where one step of the output is finer than what rounding does
    before it, a sum that is rounded the other way makes several steps: ``oracle.output_steps`` counts those of a softmax, and a
    quarter of what quantization itself changes is no violation.
    """
    if trial.is_mixed:
        raise Skipped("a model in mixed precision")
    aware = trial.call(kp.quantize_aware, trial.model, "int8", representative_dataset=trial.packed_calibration)
    path = trial.folder / "aware.tflite"
    trial.call(kp.export_tflite, aware, path, None, trial.packed_calibration)
    samples = dict(zip(file_names(aware), trial.subject.samples, strict=True))
    rows = zip(
        trial.expected,
        predict(aware, trial.subject.samples),
        oracle.run_tflite(path, samples, delegates=False),
        oracle.output_steps(path),
        strict=True,
    )
    for number, (exact, output, values, step) in enumerate(rows):
        limit = 1.01 * step if step else 1e-4 * np.abs(output).max()
        difference = values.reshape(output.shape) - output
        share = float(np.mean(np.abs(difference) <= limit))
        if share < 0.995 and _power(difference) > _power(output - exact) / 16:
            raise Violation(f"output {number}: {share:.1%} of values are within a step of {step:.3g}")


def _power(values: Array) -> float:
    return float(np.mean(np.square(values.astype("float64"))))
