"""``keras-precision search``."""

import json
import sys

import numpy as np
import pytest

import keras_precision as kp
from keras_precision.cli.main import main

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of KerasTuner, in its locks


@pytest.fixture(scope="module")
def files(unsure, tmp_path_factory):
    """A folder with a model, training samples, labelled ones, and a module with a function."""
    folder = tmp_path_factory.mktemp("command")
    unsure.model.save(folder / "model.keras")
    np.savez(folder / "train.npz", x=unsure.x)
    np.savez(folder / "val.npz", x=unsure.x_val, y=unsure.y_val)
    (folder / "my_samples.py").write_text(
        f"import numpy as np\n\ndef load():\n    return np.load({str(folder / 'train.npz')!r})['x'][:80]\n"
    )
    return folder


def test_the_smallest_file_within_a_drop(files, unsure, tmp_path, capsys):
    """The file and its plan are written, the front is shown, and the file keeps the accuracy."""
    path, plan = tmp_path / "best.tflite", tmp_path / "best.json"
    options = ["search", files / "model.keras", "--data", files / "train.npz", "--validation", files / "val.npz"]
    limits = ["--choices", "int8", "int4", "--max-metric-drop", "0.03", "-o", path, "--plan", plan]
    assert main([str(argument) for argument in (*options, *limits)]) == 0
    output = capsys.readouterr().out
    assert "metric drop" in output
    assert "Plans run: " in output
    accuracy = kp.evaluate(path, unsure.x_val, unsure.y_val).value("accuracy")
    full = unsure.model.evaluate(unsure.x_val, unsure.y_val, verbose=0, return_dict=True)["accuracy"]
    assert accuracy >= full - 0.03
    assert "int4" in kp.PrecisionPlan.load(plan).layers.values()


def test_data_of_a_function_and_a_project_that_stays(files, tmp_path, capsys, monkeypatch):
    """Without labels the divergence is minimised; the answer can be had as JSON, and the trials stay."""
    monkeypatch.chdir(files)
    arguments = ["search", "model.keras", "--data", "my_samples:load", "--choices", "int8", "int4", "--json"]
    arguments += ["--max-size", "12500", "-o", str(tmp_path / "best.tflite"), "--project", str(tmp_path / "project")]
    before = list(sys.path)
    assert main(arguments) == 0
    assert sys.path == before
    printed = capsys.readouterr()
    assert f"importing 'my_samples' from {files / 'my_samples.py'}\n" in printed.err
    document = json.loads(printed.out)
    assert document["name"].startswith("tflite")
    assert (tmp_path / "best.tflite").stat().st_size <= 12500
    assert list((tmp_path / "project").glob("trial_*/evaluation.npz"))


def test_what_cannot_be_searched_for_ends_with_2(files, tmp_path, capsys):
    """A budget that no plan meets is reported in one line, and nothing is written."""
    arguments = ["search", str(files / "model.keras"), "--data", str(files / "train.npz"), "--max-size", "10"]
    assert main([*arguments, "-o", str(tmp_path / "best.tflite")]) == 2
    assert "Expected max_size_bytes of at least" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("data", "message"),
    [("gone:load", "there is no 'gone' in "), ("my_samples:lode", "has no attribute 'lode'")],
)
def test_a_function_that_is_nowhere_ends_with_2(files, tmp_path, capsys, monkeypatch, data, message):
    """The message says what is missing, and where it was looked for."""
    monkeypatch.chdir(files)
    assert main(["search", "model.keras", "--data", data, "-o", str(tmp_path / "best.tflite")]) == 2
    assert message in capsys.readouterr().err
