"""The commands diagnose and lint."""

import json

import numpy as np
import pytest

import keras_precision as kp
from keras_precision.cli.main import main
from keras_precision.core.result import Measurement, Result


@pytest.fixture
def model_file(tmp_path):
    """A model in plain float16, in a file."""
    import keras

    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, dtype="float16", name="plain")])
    model.save(tmp_path / "model.keras")
    return tmp_path / "model.keras"


def test_lint_of_a_file(model_file, capsys):
    """What is wrong is printed, as text and as JSON, and the exit code says that it is an error."""
    assert main(["lint", str(model_file)]) == 1
    assert "Error plain-float16: 'plain' has the policy 'float16'" in capsys.readouterr().out
    assert main(["lint", str(model_file), "--json"]) == 1
    assert "plain-float16" in json.dumps(json.loads(capsys.readouterr().out))


def test_diagnose_of_results_and_models(model_file, tmp_path, capsys):
    """Results are judged against the first, a model on samples; nothing wrong ends with 0."""
    for name, losses in (("good", (1.0, 0.5)), ("bad", (1.0, 0.9))):
        rows = (Measurement("epoch", "loss", loss, epoch) for epoch, loss in enumerate(losses))
        Result(name, tuple(rows)).save(tmp_path / f"{name}.json")
    assert main(["diagnose", str(tmp_path / "good.json")]) == 0
    assert capsys.readouterr().out.strip() == "No findings."
    assert main(["diagnose", str(tmp_path / "good.json"), str(tmp_path / "bad.json")]) == 0
    assert "leaves-baseline" in capsys.readouterr().out
    assert main(["diagnose", str(tmp_path / "good.json"), str(model_file)]) == 2
    assert "Expected one model, or results. Received: " in capsys.readouterr().err
    np.savez(tmp_path / "data.npz", x=np.full((4, 4), 1e7, "float32"), y=np.zeros((4, 2), "float32"))
    assert main(["diagnose", str(model_file), "--data", str(tmp_path / "data.npz"), "--loss", "mse"]) == 1
    assert main(["diagnose", str(model_file), str(tmp_path / "good.json")]) == 2
    assert isinstance(kp.METRICS["stable"].meaning, str)


def test_diagnose_of_a_model_of_two_inputs(tmp_path, capsys):
    """Two arrays of samples without labels are two inputs, and not samples and labels."""
    import keras

    inputs = [keras.Input((4,), name="one"), keras.Input((3,), name="two")]
    joined = keras.layers.Concatenate()(inputs)
    keras.Model(inputs, keras.layers.Dense(2)(joined)).save(tmp_path / "model.keras")
    np.savez(tmp_path / "data.npz", one=np.ones((8, 4), "float32"), two=np.ones((8, 3), "float32"))
    arguments = ["diagnose", str(tmp_path / "model.keras"), "--data", str(tmp_path / "data.npz"), "--x", "one", "two"]
    assert main(arguments) == 0
    assert capsys.readouterr().out.strip() == "No findings."
