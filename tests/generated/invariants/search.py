"""What a search judges against the file that is exported."""

import math

import numpy as np

import keras_precision as kp
from generated import oracle
from generated.trial import Trial, Violation

__all__ = ["check_judged"]


def check_judged(trial: Trial) -> None:
    """The divergence that the tuner has recorded for its best plan is that of the exported file."""
    samples = tuple(trial.subject.samples) if len(trial.subject.samples) > 1 else trial.subject.samples[0]
    tuner = trial.call(
        kp.PrecisionTuner, trial.model, trial.calibration, samples, ("int8", "float32"),
        objective="size_bytes", budget=kp.Budget(max_divergence=1e6), max_trials=3,
        directory=trial.folder / "search", verbose=False,
    )  # fmt: skip
    trial.call(tuner.search)
    (best,) = [result for result in tuner.results() if result.plan == tuner.best_plan][:1]
    judged = next(row.value for row in best.measurements if row.metric == "divergence")
    path = trial.folder / "best.tflite"
    trial.call(tuner.export_best, path)
    exported = float(
        np.mean(
            [
                oracle.divergence(expected, output)
                for expected, output in zip(trial.expected, oracle.run_tflite(path, trial.file_inputs), strict=True)
            ]
        )
    )
    if not math.isclose(judged, exported, rel_tol=0.02, abs_tol=1e-7):
        raise Violation(f"divergence {judged:.4g} judged, {exported:.4g} in the exported file")
