"""Files that an earlier version saved: each kind is loaded, and is what it was. ``golden/saved`` is from before the folders."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import keras_precision as kp
from keras_precision.core.errors import FileFormatError
from keras_precision.core.saved_value import SavedValue

SAVED = Path(__file__).parent / "golden" / "saved"


def samples() -> tuple[np.ndarray, np.ndarray]:
    """Return the samples of two classes that the files were made with, and their labels."""
    random = np.random.default_rng(0)
    y = random.integers(0, 2, 96)
    return (random.normal(size=(96, 4)) + 2 * y[:, np.newaxis]).astype("float32"), y


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (kp.PrecisionPlan, "plan.json"),
        (kp.PrecisionPlan, "training-plan.json"),
        (kp.PrecisionPlan, "search-best.json"),
        (kp.Result, "result.json"),
        (kp.Comparison, "comparison.json"),
    ],
)
def test_values_are_saved_again_as_they_were(kind: Any, name: str, tmp_path: Path) -> None:
    """What is loaded and saved again is the same document."""
    kind.load(SAVED / name).save(tmp_path / name)
    assert json.loads((tmp_path / name).read_text()) == json.loads((SAVED / name).read_text())


def test_a_calibration_is_saved_again_as_it_was(tmp_path: Path) -> None:
    """Every array of it is the same."""
    kp.Calibration.load(SAVED / "calibration.npz").save(tmp_path / "calibration.npz")
    old, new = (
        dict(np.load(folder / "calibration.npz", allow_pickle=False)) for folder in (SAVED, tmp_path)
    )  # fmt: skip
    assert old.keys() == new.keys()
    for name, array in old.items():
        np.testing.assert_array_equal(array, new[name])


@pytest.mark.parametrize("kind", [kp.PrecisionPlan, kp.Result, kp.Comparison, kp.Calibration])
def test_values_are_saved_and_loaded_in_one_place(kind: Any, tmp_path: Path) -> None:
    """None has a save or load of its own; a file that is missing, or of another kind, is named."""
    assert (kind.save, kind.load.__func__) == (SavedValue.save, SavedValue.load.__func__)
    missing, other = tmp_path / "missing", SAVED / ("result.json" if kind is not kp.Result else "plan.json")
    with pytest.raises(FileNotFoundError, match=rf"Expected a saved {kind.__name__}\. Received: '{missing}'"):
        kind.load(missing)
    with pytest.raises(FileFormatError, match=rf"{other.name}: expected .*Received: "):
        kind.load(other)


@pytest.mark.parametrize("name", ["aware", "wrapped"])
def test_models_with_our_layers_are_loaded_in_a_fresh_process(name: str, tmp_path: Path) -> None:
    """A quantization-aware model, and one with a PrecisionWrapper, predict as they did where nothing was named before."""
    np.save(tmp_path / "x.npy", samples()[0][:8])
    code = (
        "import sys, numpy as np, keras_precision as kp\n"
        "model = kp.load_model(sys.argv[1])\n"
        "np.save(sys.argv[2], model.predict(np.load(sys.argv[3]), verbose=0))"
    )
    arguments = [SAVED / f"{name}.keras", tmp_path / "y.npy", tmp_path / "x.npy"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    subprocess.run([sys.executable, "-c", code, *map(str, arguments)], check=True, env=environment)
    with np.load(SAVED / "answers.npz") as expected:
        # Processors add up bfloat16, in which the wrapped layer computes, in ways of their own.
        tolerance = 2**-8 if name == "wrapped" else 1e-6
        np.testing.assert_allclose(np.load(tmp_path / "y.npy"), expected[name], rtol=1e-5, atol=tolerance)


def test_a_quantization_aware_model_still_stands_for_its_plain_one() -> None:
    """The plain model has the same layers."""
    plain = kp.from_quantize_aware(kp.load_model(SAVED / "aware.keras"))
    assert list(kp.layer_paths(plain)) == ["wide", "head"]


def test_the_card_of_a_file_is_read() -> None:
    """An exported file says how it was made."""
    assert kp.edge.inspect(SAVED / "int8.tflite").card is not None


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of KerasTuner, in its locks
def test_a_search_that_has_ended_is_taken_up(tmp_path: Path) -> None:
    """No plan is run again, and the best plan is the same."""
    import keras

    x, y = samples()
    shutil.copytree(SAVED / "search", tmp_path / "search")
    tuner = kp.PrecisionTuner(
        keras.models.load_model(SAVED / "float.keras"), x[:48], (x[48:], y[48:]), ("int8", "int4"), max_trials=3,
        budget=kp.Budget(max_metric_drop=0.2), directory=tmp_path, project_name="search", verbose=False,
    )  # fmt: skip
    before = {path: path.read_bytes() for path in (tmp_path / "search").rglob("evaluation.npz")}
    tuner.search()
    assert tuner.best_plan == kp.PrecisionPlan.load(SAVED / "search-best.json")
    assert {path: path.read_bytes() for path in (tmp_path / "search").rglob("evaluation.npz")} == before
    assert len(before) == 3
