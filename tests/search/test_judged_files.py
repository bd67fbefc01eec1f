"""The file that a search judges is the file that an export writes, bit by bit, and its figures are LiteRT's."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import litert
import nets
import numpy as np
import pytest

import keras_precision as kp
from keras_precision.core.errors import SearchError
from keras_precision.export.card import with_card
from keras_precision.runtimes.card import card
from keras_precision.search.evaluation import post_training

pytestmark = [
    pytest.mark.every_stack,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of KerasTuner, in its locks
]


class Task(NamedTuple):
    """A net, and samples by input name."""

    model: Any
    x: dict[str, np.ndarray]

    @property
    def samples(self) -> Any:
        """The samples as the model takes them."""
        arrays = list(self.x.values())
        return tuple(arrays) if len(arrays) > 1 else arrays[0]

    def predictions(self) -> np.ndarray:
        """Return what the model predicts."""
        arrays = list(self.x.values())
        return np.asarray(self.model.predict(arrays if len(arrays) > 1 else arrays[0], verbose=0), "float64")


def unlike_features(keras: Any, rng: np.random.Generator) -> Task:
    """A classifier that an int8 input ruins."""
    model, x = nets.unlike_features(keras, rng)
    return Task(model, {"raw": x})


def two_inputs(keras: Any, rng: np.random.Generator) -> Task:
    """A regression with two numbers of unlike scale, from two inputs whose names do not sort as they stand."""
    z, a = keras.layers.Input((6,), name="z"), keras.layers.Input((3,), name="a")
    branches = [keras.layers.Dense(8, "relu", name="left")(z), keras.layers.Dense(8, "relu", name="right")(a)]
    head = keras.layers.Dense(2, name="price_and_rooms")
    model = keras.Model([z, a], head(keras.layers.Concatenate(name="joined")(branches)))
    head.set_weights([rng.normal(size=(16, 2)).astype("float32") * [300.0, 1.0], np.zeros(2, "float32")])
    return Task(model, {name: rng.normal(size=(96, size)).astype("float32") for name, size in (("z", 6), ("a", 3))})


def images(keras: Any, rng: np.random.Generator) -> Task:
    """A classifier of images, with a residual sum."""
    return Task(nets.conv(keras), {"image": rng.random((64, 12, 12, 1)).astype("float32")})


@pytest.fixture(scope="module", params=[unlike_features, two_inputs, images], ids=lambda build: build.__name__)
def task(request: Any, stack: Any) -> Task:
    """A net with its samples."""
    build: Callable[[Any, np.random.Generator], Task] = request.param
    stack.keras.utils.set_random_seed(3)
    return build(stack.keras, np.random.default_rng(3))


@pytest.fixture(scope="module")
def calibration(task: Task) -> Any:
    """The ranges of the net on its samples."""
    return kp.calibrate(task.model, task.samples)


@pytest.fixture(scope="module")
def tuner(task: Task, calibration: Any, tmp_path_factory: pytest.TempPathFactory) -> kp.PrecisionTuner:
    """A search of a few trials."""
    options = {"max_trials": 7, "directory": tmp_path_factory.mktemp("search"), "verbose": False}
    found = kp.PrecisionTuner(task.model, calibration, task.samples, ("int8", "float32"), **options)
    found.search()
    return found


def test_a_plan_whose_file_does_not_run_ends_no_search(stack: Any, tmp_path: Path) -> None:
    """Branches in int16x8 before an int8 concatenation have no file that runs; the search goes on without them."""
    net = two_inputs(stack.keras, np.random.default_rng(3))
    options = {"max_trials": 6, "directory": tmp_path, "verbose": False}
    found = kp.PrecisionTuner(net.model, net.samples, net.samples, ("int8", "int16x8"), **options)
    found.search()
    assert all("int16x8" in unit.choices for unit in found.space.units)
    assert found.results()[0].plan == kp.PrecisionPlan.deployment("int8")


def divergence(task: Task, path: Path) -> float:
    """Return the divergence of a file, by NumPy, from the predictions of the model."""
    found = litert.predict(path, task.x)[0].astype("float64")
    expected = task.predictions()
    if len(task.x) > 1:  # the regression
        own, pooled = (np.mean((found - expected) ** 2, axis=0) / expected.var(axis=axis) for axis in (0, None))
        return float(np.mean(np.minimum(own, np.maximum(pooled, 1))))  # a lost channel counts as 1
    p, q = (np.maximum(values, 1 / 512) for values in (expected, found))
    p, q = (values / values.sum(-1, keepdims=True) for values in (p, q))
    return float((p * np.log(p / q)).sum(-1).mean())


def test_each_plan_was_judged_by_the_file_that_its_export_writes(
    task: Task, calibration: Any, tuner: kp.PrecisionTuner, tmp_path: Path
) -> None:
    """Bytes are equal apart from the card, and the divergence is that of LiteRT and NumPy."""
    path = tmp_path / "model.tflite"
    for result in tuner.results():
        kp.export_tflite(task.model, path, result.plan, representative_dataset=calibration)
        assignment = tuple(result.plan.precision_of(unit.name) for unit in tuner.space.units)
        judged = tuner.mode.evaluator.content(assignment)
        assert with_card(judged, card(path)) == path.read_bytes()
        assert result.value("divergence") == pytest.approx(divergence(task, path), rel=1e-3, abs=1e-7)


def test_the_best_plan_is_written_as_it_was_judged_from_samples(
    task: Task, tuner: kp.PrecisionTuner, tmp_path: Path
) -> None:
    """The plan says it all: from the samples alone, an export and that of the tuner write the same file."""
    tuner.export_best(tmp_path / "best.tflite")
    plan = kp.PrecisionPlan.load(tuner.best_plan.save(tmp_path / "plan.json"))
    kp.export_tflite(task.model, tmp_path / "own.tflite", plan, representative_dataset=task.samples)
    (own,), (best,) = (litert.predict(tmp_path / name, task.x) for name in ("own.tflite", "best.tflite"))
    np.testing.assert_array_equal(own, best)


def test_inputs_and_outputs_that_int8_ruins_stay_in_float(task: Task, tuner: kp.PrecisionTuner) -> None:
    """Where integers at the input, or one scale of two outputs, lose predictions, all plans have floats there; elsewhere none has."""
    is_ruined = "image" not in task.x
    assert {result.plan.io for result in tuner.results()} == ({"float32"} if is_ruined else {None})
    assert tuner.best_plan.io_type == ("float32" if is_ruined else "int8")


def test_one_layer_at_a_time_is_judged_by_files_of_exports(task: Task, calibration: Any, tmp_path: Path) -> None:
    """The divergence of each change is that of the file which an export with that plan writes."""
    found = kp.sensitivity(task.model, calibration, ("int8", "float32"), validation_data=task.samples)
    plans = {"all in int8": kp.PrecisionPlan.deployment("int8")}
    plans["inputs and outputs in float32"] = kp.PrecisionPlan.deployment("int8", io="float32")
    for subject, plan in plans.items():
        kp.export_tflite(task.model, tmp_path / "model.tflite", plan, representative_dataset=calibration)
        expected = divergence(task, tmp_path / "model.tflite")
        assert found.value("divergence", subject) == pytest.approx(expected, rel=1e-3, abs=1e-7)


def test_a_file_that_is_not_the_one_that_was_evaluated_is_refused(monkeypatch, tmp_path):
    """As after a package was updated between the search and the export."""
    monkeypatch.setattr(post_training, "card", lambda file: "card")
    monkeypatch.setattr(post_training, "with_card", lambda content, text: content)
    (tmp_path / "model.tflite").write_bytes(b"another")
    mode = SimpleNamespace(evaluator=SimpleNamespace(content=lambda assignment: b"evaluated"))
    outcome = SimpleNamespace(trial="trial 2", assignment=())
    with pytest.raises(SearchError, match="Expected the export of trial 2 to write the file that was evaluated"):
        post_training.PostTraining._check_judged(mode, outcome, tmp_path / "model.tflite")
