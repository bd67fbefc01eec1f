"""Ctrl-C: wherever it comes, the process is as it was, and no temporary file is left; ``benchmarks/robustness.py`` kills."""

import importlib
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import keras_precision as kp
from robustness.interruptions import count_lines, interrupt_at, process_state

SAVED = Path(__file__).parents[1] / "golden" / "saved"
X = np.random.default_rng(0).normal(size=(32, 4)).astype("float32")

ACTS: dict[str, Callable[[Any, Path], object]] = {
    "export_tflite": lambda model, folder: kp.export_tflite(
        model, folder / "model.tflite", "int8", kp.Calibration.load(SAVED / "calibration.npz")
    ),
    "evaluate": lambda model, folder: kp.evaluate(SAVED / "int8.tflite", X, np.zeros(32, int)),
    "apply_plan": lambda model, folder: kp.apply_plan(model, kp.PrecisionPlan.training("mixed_bfloat16")),
    "diagnose": lambda model, folder: kp.diagnose(model),
}


@pytest.mark.filterwarnings("ignore::keras_precision.PrecisionWarning")
# A file that was opened, but not yet in its block, is closed when it is collected.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("name", ACTS)
def test_an_interrupted_call_leaves_the_process_as_it_was(name: str, tmp_path: Path) -> None:
    """At twelve lines of the package, drawn among all that the call runs."""
    model = importlib.import_module("keras").models.load_model(SAVED / "float.keras")

    def act() -> object:
        return ACTS[name](model, tmp_path)

    act()  # what it imports and compiles once
    before, rng, lines = process_state(), random.Random(0), count_lines(act)
    interrupted = 0
    for _ in range(12):
        interrupted += interrupt_at(rng.randrange(1, lines), act)
        assert process_state() == before
        assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    assert interrupted > 6  # one that comes in a callback of a library may be lost there


def test_an_interruption_inside_restores_policy_and_tf32() -> None:
    """The block ends as with any other error, for both Keras packages."""
    pytest.importorskip("tf_keras")
    before = process_state()
    with pytest.raises(KeyboardInterrupt), kp.precision("mixed_bfloat16", tf32=False):
        assert process_state() != before
        raise KeyboardInterrupt
    assert process_state() == before
