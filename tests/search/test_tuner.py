"""PrecisionTuner: what KerasTuner's users know, on a small net whose files are really compiled and run."""

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace

import nets
import numpy as np
import pytest

import keras_precision as kp
from keras_precision.core.errors import (
    DataError,
    DestinationError,
    ExportError,
    FileFormatError,
    InputError,
    SearchError,
    UnknownPrecisionError,
)
from keras_precision.search.evaluation.post_training import PostTraining
from keras_precision.search.objective.score import Score

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of KerasTuner, in its locks

CHOICES = ("int8", "int4")


@pytest.fixture(scope="module")
def make(unsure, tmp_path_factory):
    """Return a function that makes a tuner on the trained net."""
    folder = tmp_path_factory.mktemp("projects")

    def build(project, **options):
        defaults = {"choices": CHOICES, "directory": folder, "project_name": project, "verbose": False}
        return kp.PrecisionTuner(unsure.model, unsure.x[:64], (unsure.x_val, unsure.y_val), **(defaults | options))

    return build


@pytest.fixture(scope="module")
def small(make):
    """A tuner that has looked for the smallest file within three percent of accuracy."""
    tuner = make("small", budget=kp.Budget(max_metric_drop=0.03))
    tuner.search()
    return tuner


def test_the_best_plan_keeps_the_budget_and_none_that_was_run_is_smaller(small):
    """Of all plans that were run within the drop, it has the smallest file; and it is one of layer paths."""
    within = [result for result in small.results() if result.value("metric_drop") <= 0.03]
    best = min(within, key=lambda result: result.value("size_bytes"))
    assert small.best_plan == best.plan
    assert set(small.best_plan.layers) <= set(kp.layer_paths(small.model))
    assert best.value("size_bytes") < small.results()[0].value("size_bytes")  # all in int8, which is run first
    assert small.gap <= 0.02


def test_hyperparameters_are_called_by_layer_paths(small):
    """KerasTuner's own space has a choice per layer."""
    space = {parameter.name: parameter.values for parameter in small.oracle.get_space().space}
    assert space == {name: ["int8", "int4"] for name in ("wide", "middle", "narrow", "head")}
    values = small.get_best_hyperparameters()[0].values
    assert {path for path, choice in values.items() if choice == "int4"} == set(small.best_plan.layers)


def test_the_exported_file_is_the_one_that_was_judged(small, unsure, tmp_path, monkeypatch):
    """It scores what the search says, and is not larger than that."""
    written = small.export_best(tmp_path / "best.tflite")
    figures = next(result for result in small.results() if result.plan == small.best_plan)
    scored = kp.evaluate(tmp_path / "best.tflite", unsure.x_val, unsure.y_val)
    assert scored.value("accuracy") == figures.value("accuracy")
    assert written.value("size_bytes") <= figures.value("size_bytes")
    assert written.plan.precision_of("middle") == small.best_plan.precision_of("middle")
    with pytest.raises(DestinationError, match="Expected a path that is free"):
        small.export_best(tmp_path / "best.tflite", overwrite=False)
    with pytest.raises(DestinationError, match="ends in '.tflite'"):
        small.export_best(tmp_path / "best.onnx")
    with pytest.raises(SearchError, match="Expected a file of at most 1 bytes. Received: .*search with a smaller"):
        monkeypatch.setattr(small.mode, "objective", replace(small.mode.objective, budget=kp.Budget(max_size_bytes=1)))
        small.mode.write(small._expected_best(), small.best_plan, tmp_path, tmp_path / "large.tflite", {})


def test_best_models_compute_as_their_files(small, unsure, tmp_path):
    """A model answers bit by bit as the exported file, scores with the compiled metrics, and is saved with the file inside."""
    import keras

    model = small.get_best_models()[0]
    small.export_best(tmp_path / "best.tflite")
    expected = kp.edge.predict(tmp_path / "best.tflite", unsure.x_val)
    np.testing.assert_array_equal(model.predict(unsure.x_val, verbose=0), expected)
    accuracy = model.evaluate(unsure.x_val, unsure.y_val, verbose=0, return_dict=True)["accuracy"]
    best = next(result for result in small.results() if result.plan == small.best_plan)
    assert accuracy == pytest.approx(best.value("accuracy"))
    model.save(tmp_path / "best.keras")
    again = keras.models.load_model(tmp_path / "best.keras")
    np.testing.assert_array_equal(again.predict(unsure.x_val[:4], verbose=0), expected[:4])


def test_the_front_is_sorted_and_no_point_of_it_is_beaten(small):
    """Along the front files grow, and the drop of the metric shrinks."""
    front = small.pareto_front()
    sizes, drops = ([result.value(metric) for result in front] for metric in ("size_bytes", "metric_drop"))
    assert sizes == sorted(sizes)
    assert drops == sorted(drops, reverse=True)
    assert len(set(drops)) == len(front)
    assert "Deployment" in kp.render(front)


def test_a_search_that_has_ended_is_taken_up_where_it_was(small, make, capfd):
    """The same project gives the same plan without a single new trial, and in KerasTuner's words."""
    again = make("small", budget=kp.Budget(max_metric_drop=0.03))
    before = len(again.oracle.trials)
    assert again.best_plan == small.best_plan  # which is read without a search
    assert again.gap == small.gap
    again.search()
    assert len(again.oracle.trials) == before == len(small.results())
    assert again.best_plan == small.best_plan
    again.results_summary(1)
    assert "Trial" in capfd.readouterr().out


def test_an_interrupted_search_goes_on_as_if_it_had_not_been(small, make, monkeypatch):
    """Stopped after any number of trials and begun anew, it runs the same plans in the same order."""

    class KilledError(Exception):
        pass

    for stop in (2, 6):
        tuner = make(f"killed_{stop}", budget=kp.Budget(max_metric_drop=0.03))
        ended = tuner.on_trial_end

        def on_trial_end(trial, *, ended=ended, stop=stop):
            ended(trial)
            if int(trial.trial_id) + 1 == stop:
                raise KilledError

        monkeypatch.setattr(tuner, "on_trial_end", on_trial_end)
        with pytest.raises(KilledError):
            tuner.search()
        resumed = make(f"killed_{stop}", budget=kp.Budget(max_metric_drop=0.03))
        resumed.search()
        assert [result.plan for result in resumed.results()] == [result.plan for result in small.results()]


def test_a_kill_between_two_files_loses_nothing_and_repeats_nothing(make, small):
    """A trial whose outcome was saved, but which the oracle still holds for running, is not run again."""
    folder = small._project.folder
    copied = folder.with_name("torn")
    shutil.copytree(folder, copied)
    state = json.loads((copied / "oracle.json").read_text())
    last = state["end_order"][-1]
    (copied / "oracle.json").write_text(json.dumps(state | {"ongoing_trials": {"tuner0": last}}))
    again = make("torn", budget=kp.Budget(max_metric_drop=0.03))
    again.search()
    assert len(again.results()) == len(small.results())
    assert again.oracle.end_order.count(last) == 1


def test_a_kill_between_the_files_of_a_beginning_stops_nothing(make, small, monkeypatch):
    """A trial that only its own file tells of is run, and the plans are those of a search without a kill."""

    class KilledError(Exception):
        pass

    tuner = make("begun", budget=kp.Budget(max_metric_drop=0.03))
    save = tuner.oracle.save

    def killed():
        if len(tuner.oracle.trials) == 4 and len(tuner.oracle.end_order) == 3:
            raise KilledError
        save()

    monkeypatch.setattr(tuner.oracle, "save", killed)
    with pytest.raises(KilledError):
        tuner.search()
    resumed = make("begun", budget=kp.Budget(max_metric_drop=0.03))
    resumed.search()
    assert [result.plan for result in resumed.results()] == [result.plan for result in small.results()]


def test_what_a_search_refuses_changes_nothing(small, make, unsure):
    """Data of a failed search are forgotten; those of another search are distinguished from the first."""
    tuner = kp.PrecisionTuner(
        unsure.model, choices=CHOICES, budget=kp.Budget(max_metric_drop=0.03), verbose=False,
        directory=small._project.folder.parent, project_name="repeated",
    )  # fmt: skip
    validation_data = (unsure.x_val, unsure.y_val)
    with pytest.raises(DataError, match=r"Expected samples of shape \(n, 16\)"):
        tuner.search(unsure.x[:64], validation_data=(unsure.x_val[:, :6], unsure.y_val))
    tuner.search(unsure.x[:64], validation_data=validation_data)
    assert tuner.best_plan == small.best_plan
    with pytest.raises(DestinationError, match="another validation data"):
        tuner.search(unsure.x[:64], validation_data=(unsure.x_val[:20], unsure.y_val[:20]))
    assert "160 samples" in tuner.results()[0].environment.sources["divergence"]
    tuner.search()  # with the data that it has
    assert tuner.best_plan == small.best_plan


def test_validation_data_in_any_form_that_fit_takes(small, make, unsure):
    """A dataset of batches with labels, and a tuple with weights, give what arrays give."""
    tf = pytest.importorskip("tensorflow")
    x, y = unsure.x_val, unsure.y_val
    for name, validation_data in {
        "dataset": tf.data.Dataset.from_tensor_slices((x, y)).batch(50),
        "weighted": (x, y, np.ones(len(y))),
    }.items():
        tuner = kp.PrecisionTuner(
            unsure.model, unsure.x[:64], validation_data, CHOICES, budget=kp.Budget(max_metric_drop=0.03), verbose=False,
            directory=small._project.folder.parent, project_name=name,
        )  # fmt: skip
        tuner.search()
        assert tuner.best_plan == small.best_plan


def test_samples_of_two_inputs_are_no_labels(rng):
    """A tuple of one array per input is not samples and labels, unless the first of it is itself a tuple."""
    import keras

    from keras_precision.search.evaluation.validation_set import read_validation_set

    inputs = [keras.Input((3,)), keras.Input((2,))]
    model = keras.Model(inputs, keras.layers.Concatenate()(inputs))
    one, other = rng.normal(size=(8, 3)), rng.normal(size=(8, 2))
    two = keras.Model(inputs, [keras.layers.Dense(1)(entry) for entry in inputs], name="two")
    with pytest.raises(DataError, match="with one output for the metric 'loss'. Received: 'two' with 2. Search by"):
        read_validation_set(two, (one, other), Score("loss", "min", float))
    alone = read_validation_set(model, (one, other), None)
    assert [len(samples) for samples in alone.samples.values()] == [8, 8]
    assert alone.labels is None
    loss = Score("loss", "min", float)
    for labels in (np.arange(8), list(range(8)), [np.arange(8)], {"head": np.arange(8)}):
        np.testing.assert_array_equal(read_validation_set(model, ((one, other), labels), loss).labels, np.arange(8))
    rows = list(np.eye(3)[np.arange(8) % 3])
    np.testing.assert_array_equal(
        read_validation_set(model, ((one, other), rows), loss).labels, rows
    )  # one label per sample
    np.testing.assert_array_equal(
        read_validation_set(model, ((one, other), list(np.arange(8))), loss).labels, np.arange(8)
    )
    with pytest.raises(DataError, match="Expected labels for the metric 'loss'. Received: None for labels"):
        read_validation_set(model, ((one, other), None), loss)
    with pytest.raises(DataError, match=r"Expected labels of shape \(8, ...\). Received: 3"):
        read_validation_set(model, ((one, other), 3), loss)
    with pytest.raises(DataError, match="Received: those of 0"):
        read_validation_set(model, ((one, other), {}), loss)
    several = [np.arange(8), np.arange(8)]
    assert read_validation_set(model, ((one, other), several), None).labels is None  # nothing is scored on them
    for labels in (several, dict(zip("ab", several, strict=True))):
        with pytest.raises(
            DataError, match="Expected the labels of one output for the metric 'loss'. Received: those of 2"
        ):
            read_validation_set(model, ((one, other), labels), loss)
    with pytest.raises(DataError, match="Expected labels for the metric 'loss'. Received: samples alone"):
        read_validation_set(model, (one, other), Score("loss", "min", float))
    with pytest.raises(DataError, match="Leave the weights out"):
        read_validation_set(model, ((one, other), np.arange(8), np.ones(8)), Score("loss", "min", float))


def test_a_search_by_divergence_needs_no_labels(make, unsure):
    """Without labels the budget is one of divergence; data may come with search, as for fit."""
    tuner = kp.PrecisionTuner(
        unsure.model, choices=CHOICES, budget=kp.Budget(max_size_bytes=12500), samples=16, project_name="unlabelled",
        directory=make("other")._project.folder.parent, verbose=False,
    )  # fmt: skip
    with pytest.raises(DataError, match="Expected representative data. Received: None"):
        tuner.search()
    tuner.search(unsure.x[:32], unsure.y[:32], validation_data=(unsure.x_val, unsure.y_val))
    best = next(result for result in tuner.results() if result.plan == tuner.best_plan)
    assert best.value("size_bytes") <= 12500
    assert best.select("accuracy") == ()
    assert best.environment.sources["divergence"].startswith("16 samples")


@pytest.mark.slow
def test_latency_and_the_front_of_four_choices(make):
    """With latency in the budget every trial is timed; layers may be in int16x8 or float32, too."""
    budget = kp.Budget(max_latency_ms=50.0)
    tuner = make(
        "timed", choices=("int8", "int4", "int16x8", "float32"), budget=budget, objective="front", max_trials=14
    )
    tuner.search()
    assert all(result.value("latency_ms") > 0 for result in tuner.results())
    float_head = next(result.plan for result in tuner.results() if result.plan.layers.get("head") == "float32")
    assert dict(float_head.layers) == {"head": "float32"}
    assert len(tuner.oracle.trials) == 14


def test_any_oracle_of_keras_tuner(make):
    """Random search runs plans of the same space, is scored with the budget, and has the same best plan and front."""
    import keras_tuner

    oracle = keras_tuner.oracles.RandomSearchOracle(keras_tuner.Objective("score", "min"), max_trials=4, seed=1)
    tuner = make("random", oracle=oracle, budget=kp.Budget(max_metric_drop=0.03))
    tuner.search()
    assert len(tuner.results()) == 4
    assert tuner.gap is None
    assert tuner.get_best_hyperparameters()[0].values == {**tuner.space.values(tuner._best().assignment)}


def test_a_file_that_cannot_be_made_is_a_failed_trial(make, monkeypatch):
    """Failed trials leave their plan out; too many in a row end the search with the reason, and hang nothing."""
    from keras_precision.core.errors import ExportError
    from keras_precision.search.evaluation.evaluator import Evaluator

    tuner = make("failing", budget=kp.Budget(max_metric_drop=0.03), max_consecutive_failed_trials=2)
    judge = Evaluator.__call__

    def failing(self, assignment):
        if assignment == ("int4", "int8", "int8", "int8"):
            raise ExportError("Expected luck. Received: none.")
        return judge(self, assignment)

    monkeypatch.setattr(Evaluator, "__call__", failing)
    tuner.search()
    assert all(result.plan.precision_of("wide") == "int8" for result in tuner.results())
    assert "Expected luck" in next(trial.message for trial in tuner.oracle.trials.values() if trial.message)

    def broken(self, assignment):
        raise ExportError("Expected luck. Received: none.")

    monkeypatch.setattr(Evaluator, "__call__", broken)
    broken_tuner = make("broken", objective="front", max_consecutive_failed_trials=2)
    with pytest.raises(SearchError, match="(?s)Expected trials that run. Received: .*limit of 2.*Expected luck"):
        broken_tuner.search()
    with pytest.raises(SearchError, match="Received: none. Call search first"):
        _ = broken_tuner.best_plan


def test_failures_that_are_tried_again_are_learned(make, small, monkeypatch):
    """Three in a row, over the end of a round, end a search; the next one ends as if there had been none."""
    judge, calls = PostTraining.evaluate, []

    def failing(self, *args):
        calls.append(args)
        if len(calls) in (4, 5, 6):
            raise ExportError("Expected luck. Received: none.")
        return judge(self, *args)

    monkeypatch.setattr(PostTraining, "evaluate", failing)
    tuner = make("unlucky", budget=kp.Budget(max_metric_drop=0.03))
    with pytest.raises(SearchError, match="Expected luck"):
        tuner.search()
    shutil.copytree(tuner._project.folder, tuner._project.folder.with_name("unlucky_again"))
    for again in (tuner, make("unlucky_again", budget=kp.Budget(max_metric_drop=0.03))):
        again.search()
        assert again.best_plan == small.best_plan
        assert again.gap <= 0.02
        assert {trial.status for trial in again.oracle.trials.values()} == {"COMPLETED"}


def test_any_metric_of_keras_a_regression_included(tmp_path, rng):
    """The smallest file within a mean absolute error, of a model that answers numbers."""
    import keras

    x = rng.normal(size=(96, 6)).astype("float32")
    y = x @ rng.normal(size=(6, 1))
    model = keras.Sequential(
        [keras.Input((6,)), keras.layers.Dense(16, "relu"), keras.layers.Dense(8, "relu"), keras.layers.Dense(1)]
    )
    model.compile("adam", "mse", metrics=["mae"])
    model.fit(x, y, epochs=3, verbose=0)
    tuner = kp.PrecisionTuner(
        model,
        x,
        (x, y),
        CHOICES,
        budget=kp.Budget(max_metric_drop=0.05),
        objective="val_mae",
        directory=tmp_path,
        verbose=False,
    )
    tuner.search()
    assert tuner.objective.figure == "mean_absolute_error"
    errors = [result.value("mean_absolute_error") for result in tuner.results()]
    best = next(result for result in tuner.results() if result.plan == tuner.best_plan)
    assert best.value("mean_absolute_error") == min(errors)
    score = next(iter(tuner.oracle.trials.values())).metrics.get_last_value("val_mean_absolute_error")
    assert score == pytest.approx(errors[0])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"choices": ("int8",)}, InputError, "two or more precisions"),
        ({"choices": ("int8", "int2")}, UnknownPrecisionError, "Expected a choice to be one of"),
        ({"budget": 50_000}, InputError, r"Expected a budget such as kp.Budget\(max_size_bytes=50_000\)"),
        ({"objective": "val_precision"}, InputError, "Received: 'precision'; it is compiled with accuracy"),
        ({"objective": ["size_bytes", "accuracy"]}, InputError, "Expected one objective.*pass objective='front'"),
        ({"metric": "accuracy", "objective": "sise_bytes"}, InputError, "Did you mean 'size_bytes'"),
        ({"tolerance": 1.5}, InputError, "Expected tolerance from 0 to below 1"),
        ({"max_trials": 0}, InputError, "Expected max_trials >= 1"),
    ],
)
def test_what_cannot_be_searched_for_is_refused(make, options, error, message):
    """Arguments are checked before any work, and no folder is created."""
    with pytest.raises(error, match=message):
        make("refused", **options)
    assert not make("other")._project.folder.with_name("refused").exists()


def test_the_direction_of_an_objective_must_be_its_own(make):
    """A file is never to be as large as possible."""
    import keras_tuner

    with pytest.raises(
        InputError, match="Expected the direction 'min' for the objective 'size_bytes'. Received: 'max'"
    ):
        make("refused", objective=keras_tuner.Objective("size_bytes", "max"))


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        (kp.Budget(max_size_bytes=100), r"Expected max_size_bytes of at least [\d,]+, the smallest file"),
        (kp.Budget(max_divergence=1e-12), "Expected max_divergence of at least .*most precise"),
        (kp.Budget(max_latency_ms=1e-9), "Expected max_latency_ms of about .*fastest"),
    ],
)
def test_a_budget_that_no_plan_meets_is_refused_before_the_search(make, budget, message):
    """The message says the nearest that can be met, and no trial is run."""
    tuner = make(f"unreachable_{next(iter(budget.limits()))}", budget=budget)
    with pytest.raises(InputError, match=message):
        tuner.search()
    assert tuner.oracle.trials == {}


def test_a_label_free_search_for_accuracy_is_refused(unsure, tmp_path):
    """Without labels there is no accuracy: the message names the way without."""
    tuner = kp.PrecisionTuner(unsure.model, unsure.x, unsure.x, CHOICES, objective="accuracy", directory=tmp_path)
    with pytest.raises(
        DataError, match="Expected labels for the metric 'accuracy'. Received: samples alone.*divergence"
    ):
        tuner.search()
    import keras

    with pytest.raises(InputError, match="Expected a metric for max_metric_drop.*limit max_divergence"):
        kp.PrecisionTuner(nets.mlp(keras), budget=kp.Budget(max_metric_drop=0.03), directory=tmp_path)


def test_validation_data_of_another_shape_are_refused(unsure, tmp_path):
    """The message says the shape that the model takes."""
    tuner = kp.PrecisionTuner(unsure.model, unsure.x, (unsure.x_val[:, :6], unsure.y_val), CHOICES, directory=tmp_path)
    with pytest.raises(DataError, match=r"Expected samples of shape \(n, 16\)"):
        tuner.search()
    with pytest.raises(InputError, match="Received: epochs. No model is trained here"):
        tuner.search(epochs=3)


def test_the_folder_of_another_search_is_refused_unless_it_may_be_removed(small, make, tmp_path, unsure):
    """Another budget, other choices and other files are seen before anything is written."""
    with pytest.raises(DestinationError, match="that of a search with another budget.*pass overwrite=True"):
        make("small", budget=kp.Budget(max_metric_drop=0.2))
    with pytest.raises(DestinationError, match=re.escape("another choices (int8, int4, now int8, float32)")):
        make("small", choices=("int8", "float32"), budget=kp.Budget(max_metric_drop=0.03))
    other = kp.PrecisionTuner(
        unsure.model, unsure.x[:64], (unsure.x_val[:20], unsure.y_val[:20]), CHOICES, budget=kp.Budget(max_metric_drop=0.03),
        directory=small._project.folder.parent, project_name="small",
    )  # fmt: skip
    with pytest.raises(DestinationError, match="another validation data"):
        other.search()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(DestinationError, match="which holds other files"):
        make("mine", directory=tmp_path)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


def test_a_chief_that_is_begun_again_overwrites_nothing(small, make):
    """It goes on with the search that it took for an older one at its first start."""
    shutil.copytree(small._project.folder, small._project.folder.with_name("begun_again"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERAS_PRECISION_RESTARTED", "1")
        again = make("begun_again", budget=kp.Budget(max_metric_drop=0.03), overwrite=True)
    assert again.oracle.end_order == small.oracle.end_order


def test_overwrite_removes_an_older_search(small, make):
    """With overwrite=True the search begins anew, with another budget."""
    shutil.copytree(small._project.folder, small._project.folder.with_name("older"))
    tuner = make("older", objective="front", overwrite=True)
    assert tuner.oracle.trials == {}
    assert not (tuner._project.folder / "search.json").exists()


KILLED_WHILE_CLEARING = """
import os, shutil, sys
from keras_precision.core.system import files
from keras_precision.search.checkpoint import Project
moment = sys.argv[2]
exchange = files._exchange

def killed(*paths):
    if moment == "after":
        exchange(*paths)
    os.kill(os.getpid(), 9)

def removed(folder, **_):
    next(file for file in folder.rglob("*") if file.is_file()).unlink()
    os.kill(os.getpid(), 9)

if moment == "removing":
    shutil.rmtree = removed
else:
    files._exchange = killed
Project(sys.argv[1]).clear()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="it swaps two folders in one step")
@pytest.mark.parametrize("moment", ["before", "after", "removing"])
def test_a_search_is_overwritten_as_one(small, make, moment):
    """A kill leaves the whole search, or an empty folder; the next search removes what was left beside it."""
    folder = small._project.folder.with_name(f"overwritten_{moment}")
    shutil.copytree(small._project.folder, folder)
    old = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", KILLED_WHILE_CLEARING, str(folder), moment]
    assert subprocess.run(command, env=environment, check=False).returncode == -signal.SIGKILL
    left = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert left == (old if moment == "before" else {})
    assert list(folder.parent.glob(f".{folder.name}.*"))
    make(folder.name, budget=kp.Budget(max_metric_drop=0.03))
    assert not list(folder.parent.glob(f".{folder.name}.*"))


def test_what_is_shown_while_it_runs(make, capsys):
    """Trials, the best so far and the gap while it runs; at the end, the front with the layers of every plan."""
    tuner = make("shown", budget=kp.Budget(max_metric_drop=0.03), verbose=None)
    tuner.search()
    assert capsys.readouterr().err == ""  # no terminal
    tuner.search(verbose=1)
    output = capsys.readouterr().err
    assert "metric drop" in output
    assert re.search(r"^a  trial \d+  [\d.]+ kB  metric drop \S+  (all int8|int8, but int4: )", output, re.MULTILINE)


def state(change):
    """Return what changes the JSON of a file."""
    return lambda content: json.dumps(json.loads(content) | change).encode()


def without_figures(content):
    """The content of an evaluation that has predictions alone."""
    packed = io.BytesIO()
    with np.load(io.BytesIO(content)) as saved:
        np.savez(packed, **{**saved, "figures": np.frombuffer(b"{}", np.uint8)})
    return packed.getvalue()


DAMAGE = {
    "cut off": ("trial_*2/evaluation.npz", lambda content: content[:-40]),
    "foreign": ("trial_*2/evaluation.npz", lambda content: b"PK nothing"),
    "without a figure": ("trial_*2/evaluation.npz", without_figures),
    "half a trial": ("trial_*1/trial.json", lambda content: content[:200]),
    "a number of another": ("trial_*1/trial.json", state({"trial_id": "7"})),
    "no status": ("trial_*1/trial.json", state({"status": "ASLEEP"})),
    "no plan": ("trial_*1/trial.json", state({"hyperparameters": {"space": [], "values": {}}})),
    "another precision": ("trial_*1/trial.json", lambda content: re.sub(rb'("values": {"[^"]*": )"int[48]"', rb'\1"int7"', content)),
    "half an oracle": ("oracle.json", lambda content: content[:100]),
    "another order": ("oracle.json", state({"start_order": 3})),
    "other rounds": ("oracle.json", state({"rounds": [[["int7"]]]})),
}  # fmt: skip


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_file_is_named_and_the_search_goes_on_without_it(small, make, kind):
    """The message has the file and what to remove; then the search ends with the same plan, and no other trial is run again."""
    project = f"damaged_{kind}"
    folder = small._project.folder.with_name(project)
    shutil.copytree(small._project.folder, folder)
    pattern, damage = DAMAGE[kind]
    path = next(folder.glob(pattern))
    path.write_bytes(damage(path.read_bytes()))

    def search():
        tuner = make(project, budget=kp.Budget(max_metric_drop=0.03))
        tuner.search()
        return tuner

    with pytest.raises(
        FileFormatError, match=rf"{path.name}: expected a file of a search.*Remove .*search again"
    ) as caught:
        search()
    if kind not in ("cut off", "half a trial", "half an oracle"):
        return  # a search takes seconds
    removed = re.search(r"Remove the folder '(.*)', and", str(caught.value))
    if removed:
        shutil.rmtree(removed[1])
    else:
        path.unlink()
    before = {file: file.read_bytes() for file in folder.glob("trial_*/evaluation.npz")}
    tuner = search()
    assert tuner.best_plan == small.best_plan
    assert {file: file.read_bytes() for file in before} == before


@pytest.mark.parametrize("name", ["tuner0.json", "oracle.json"])
def test_a_file_of_keras_tuner_that_is_gone_loses_no_trial(small, make, name):
    """KerasTuner would begin anew, and write over the trials that there are."""
    folder = small._project.folder.with_name(f"without_{name}")
    shutil.copytree(small._project.folder, folder)
    (folder / name).unlink()
    before = {file: file.read_bytes() for file in folder.glob("trial_*/evaluation.npz")}
    tuner = make(folder.name, budget=kp.Budget(max_metric_drop=0.03))
    tuner.search()
    assert tuner.best_plan == small.best_plan
    assert {file: file.read_bytes() for file in folder.glob("trial_*/evaluation.npz")}.items() >= before.items()


def test_a_damaged_identity_is_told(small, make):
    """Without it nobody knows what was searched for."""
    folder = small._project.folder.with_name("no_identity")
    shutil.copytree(small._project.folder, folder)
    (folder / "search.json").write_text("{}")
    with pytest.raises(FileFormatError, match=r"search\.json: expected a file of a search.*overwrite=True"):
        make("no_identity", budget=kp.Budget(max_metric_drop=0.03))


def test_results_and_front_make_a_report(small, tmp_path):
    """The chart of the report has a point per plan that was run, and says its layers."""
    path = kp.save_report(small.results(), tmp_path / "search.html")
    text = path.read_text(encoding="utf-8")
    for result in small.results():
        assert result.name in text
    narrow = next(result for result in small.results() if result.plan.layers)
    layer, precision = next(iter(narrow.plan.layers.items()))
    assert f"{layer}: {precision}" in text or f"{precision}: {layer}" in text
    assert "size_bytes" in text or "Size" in text
