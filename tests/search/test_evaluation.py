"""How plans are judged: finalists by a quantization-aware training, plans of training by compared runs."""

import threading

import keras
import keras_tuner
import nets
import numpy as np
import pytest

import keras_precision as kp
from keras_precision.core.errors import (
    DataError,
    DestinationError,
    ExportError,
    InputError,
    ModelError,
    PlanError,
    SearchError,
)
from keras_precision.core.system.optional import available
from keras_precision.export.plan_space import Space, Unit
from keras_precision.report.tables.pareto_front import front_text
from keras_precision.search.evaluation import post_training, training_runs
from keras_precision.search.evaluation.mode import describe_options
from keras_precision.search.objective.goal import Goal
from keras_precision.search.strategy.local_search import Neighbourhood

CHOICES = {"quantization_aware": ("int8", "int4"), "training": ("float32", "mixed_bfloat16")}

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of KerasTuner, in its locks


@pytest.fixture(scope="module")
def make(unsure, tmp_path_factory):
    """Return a function that makes a quantization-aware tuner on the trained net."""
    folder = tmp_path_factory.mktemp("projects")

    def build(project, **options):
        defaults = {
            "choices": ("int8", "int4"),
            "budget": kp.Budget(max_metric_drop=0.0),
            "evaluation": "quantization_aware",
            "directory": folder,
            "project_name": project,
            "verbose": False,
        }
        return kp.PrecisionTuner(unsure.model, unsure.x[:64], (unsure.x_val, unsure.y_val), **(defaults | options))

    return build


@pytest.fixture(scope="module")
def aware(make, unsure):
    """A search whose three finalists were trained for an epoch."""
    tuner = make("aware")
    tuner.search(unsure.x, unsure.y, epochs=1, batch_size=32)
    return tuner


def finalists(tuner):
    """The trials that were judged by a training, and the others."""
    trials = [tuner.oracle.trials[trial_id] for trial_id in tuner.oracle.end_order]
    last = [trial for trial in trials if trial.hyperparameters.values["evaluation"] == "quantization_aware"]
    return last, [trial for trial in trials if trial not in last]


def test_the_finalists_are_plans_from_the_best_to_the_smallest(aware, unsure):
    """Three trials are trained, after all others; the last is the smallest, and all differ from the files of their plans without training."""
    last, others = finalists(aware)
    assert [trial.status for trial in last] == ["COMPLETED"] * 3
    assert aware.oracle.end_order[-3:] == [trial.trial_id for trial in last]
    results = {result.name: result for result in aware.results()}
    sizes = [results[f"trial {trial.trial_id}"].value("size_bytes") for trial in last]
    assert sizes == sorted(sizes, reverse=True)
    assert {choice for name, choice in last[-1].hyperparameters.values.items() if name != "evaluation"} == {"int4"}
    files = {
        trial.trial_id: aware.mode.content(trial.hyperparameters.values, aware._folder(trial.trial_id))
        for trial in last
    }
    for trial in last:
        plain = {**trial.hyperparameters.values, "evaluation": "post_training"}
        assert files[trial.trial_id] != aware.mode.content(plain, aware._folder(trial.trial_id))
    assert len(others) >= 5


def test_the_best_of_all_is_exported_as_it_was_judged(aware, unsure, tmp_path):
    """What was trained may be the best; its file is the one that was scored, and so is the Keras model."""
    written = aware.export_best(tmp_path / "best.tflite")
    scored = kp.evaluate(tmp_path / "best.tflite", unsure.x_val, unsure.y_val)
    best = min(
        (result for result in aware.results() if result.value("metric_drop") <= 0),
        key=lambda result: result.value("size_bytes"),
    )
    assert scored.value("accuracy") == best.value("accuracy")
    assert written.plan.layers == best.plan.layers
    model = aware.get_best_models()[0]
    assert model.evaluate(unsure.x_val, unsure.y_val, verbose=0)[1] == pytest.approx(best.value("accuracy"))


def test_a_trained_finalist_is_exported_without_options(make, unsure, tmp_path):
    """Its file is there: it is written as it is, by a tuner that takes the search up as well."""
    budget = kp.Budget(max_divergence=10.0)
    first = make("trained", budget=budget, finalists=2)
    first.search(unsure.x, unsure.y, epochs=1)
    again = make("trained", budget=budget, finalists=2)
    again.search(unsure.x, unsure.y, epochs=1)
    assert again.oracle.end_order == first.oracle.end_order
    best = again._expected_best()
    if not best.is_finalist:  # equals: the file of the plain plan diverges less
        assert best.figures["divergence"] < first._outcomes()[-1].figures["divergence"]
        best = again._outcomes()[-1]
    path = tmp_path / "trained.tflite"
    again.mode.write(best, again._plan_of(best), again._folder(best.trial_id), path, {})
    assert path.read_bytes() == (again._folder(best.trial_id) / "model.tflite").read_bytes()
    with pytest.raises(InputError, match="Expected no options for the file of a plan that was trained. Received: io"):
        again.mode.write(best, again._plan_of(best), again._folder(best.trial_id), path, {"io": "float32"})


def test_the_model_of_the_caller_is_left_as_it_is(make, unsure):
    """Weights, optimizer, compilation and answers: nothing of the user's model is trained."""
    model = unsure.model
    before, answers = model.get_weights(), model.predict(unsure.x_val, verbose=0)
    slots = [np.asarray(variable) for variable in model.optimizer.variables]
    metrics = [metric.name for metric in model.metrics]
    make("untouched", finalists=1).search(unsure.x, unsure.y, epochs=1)
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    for one, variable in zip(slots, model.optimizer.variables, strict=True):
        np.testing.assert_array_equal(one, np.asarray(variable))
    np.testing.assert_array_equal(model.predict(unsure.x_val, verbose=0), answers)
    assert [metric.name for metric in model.metrics] == metrics


def test_a_finished_search_is_read_without_data_to_train_with(aware, make):
    """Its project says it all: only going on needs them."""
    read = make("aware")
    assert read.best_plan == aware.best_plan
    assert len(read.results()) == len(aware.results())
    with pytest.raises(DataError, match="Expected data to train the finalists with"):
        read.search()


def test_a_search_goes_on_with_more_finalists(make, unsure):
    """They are chosen again: those that were trained are not trained again."""
    budget = kp.Budget(max_divergence=6e-4)  # above it are plans enough to choose from
    first = make("wider", budget=budget, finalists=2)
    first.search(unsure.x, unsure.y, epochs=1, batch_size=32)
    more = make("wider", budget=budget, finalists=5)
    more.search(unsure.x, unsure.y, epochs=1, batch_size=32)
    assert more.oracle.end_order[: len(first.oracle.end_order)] == first.oracle.end_order
    assert len(finalists(more)[0]) > len(finalists(first)[0]) == 2
    with pytest.raises(
        InputError, match=r"Expected max_trials >= \d+, for 9 finalists behind the \d+ trials that there are"
    ):
        make("wider", budget=budget, finalists=9, max_trials=len(more.oracle.trials) + 1).search(
            unsure.x, unsure.y, epochs=1, batch_size=32
        )


def test_a_search_with_fewer_finalists_than_requested_is_resumed(make, unsure):
    """There are not always as many; the number that was asked for is what decides whether more are trained."""
    options = {"finalists": 5, "max_trials": 12, "budget": kp.Budget(max_metric_drop=0.02)}
    first = make("scarce", **options)
    first.search(unsure.x, unsure.y, epochs=1)
    assert 1 <= len(finalists(first)[0]) < 5
    assert len(first.oracle.trials) > 12 - 5
    again = make("scarce", **options)
    assert again.best_plan == first.best_plan
    again.search(unsure.x, unsure.y, epochs=1)
    assert again.oracle.end_order == first.oracle.end_order


def test_a_training_is_signed_when_the_first_has_ended(make, unsure, monkeypatch):
    """One that was killed before may be another the next time."""
    tuner = make("signed", finalists=1)
    ended = tuner.oracle.end_trial

    def end_trial(trial):
        if trial.hyperparameters.values["evaluation"] == "quantization_aware":
            raise KeyboardInterrupt
        ended(trial)

    monkeypatch.setattr(tuner.oracle, "end_trial", end_trial)
    with pytest.raises(KeyboardInterrupt):
        tuner.search(unsure.x, unsure.y, epochs=2)
    again = make("signed", finalists=1)
    again.search(unsure.x, unsure.y, epochs=1)
    assert [trial.status for trial in finalists(again)[0]] == ["COMPLETED"]
    with pytest.raises(DestinationError, match=r"another training \(epochs=1, now epochs=2\)"):
        make("signed", finalists=1).search(unsure.x, unsure.y, epochs=2)


def test_finalists_of_a_model_of_tf_keras_are_trained(tmp_path, unsure):
    """By TFMOT, whose copies are compiled as the model is."""
    tf_keras = pytest.importorskip("tf_keras")
    if not available("tensorflow_model_optimization"):
        pytest.skip('pip install "keras-precision[qat]"')
    tf_keras.utils.set_random_seed(0)
    layers = [tf_keras.layers.Dense(16, "relu", name="wide"), tf_keras.layers.Dense(5, "softmax", name="head")]
    model = tf_keras.Sequential([tf_keras.Input((16,)), *layers])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(unsure.x, unsure.y, verbose=0)
    tuner = kp.PrecisionTuner(
        model, unsure.x[:64], (unsure.x_val, unsure.y_val), ("int8", "float32"), evaluation="quantization_aware",
        budget=kp.Budget(max_metric_drop=0.5), objective="front", directory=tmp_path, verbose=False,
    )  # fmt: skip
    tuner.search(unsure.x, unsure.y, epochs=1)
    last = finalists(tuner)[0]
    assert last
    assert {trial.status for trial in last} == {"COMPLETED"}
    assert len(tuner.get_best_models()) == 1


def test_a_search_that_goes_on_with_more_trials_chooses_its_finalists_behind_them(make, unsure):
    """A later plan may be the one to train."""
    first = make("few", max_trials=5, finalists=2)
    first.search(unsure.x, unsure.y, epochs=1)
    more = make("few", max_trials=8, finalists=2)
    more.search(unsure.x, unsure.y, epochs=1)
    assert len(finalists(more)[1]) > len(finalists(first)[1])
    assert more.oracle._finalists == more.oracle.strategy.finalists(2)
    trained = [more.space.assignment(trial.hyperparameters.values) for trial in finalists(more)[0]]
    assert set(more.oracle._finalists) <= set(trained)
    assert len(more.oracle.trials) <= 8
    assert [result.name for result in more.results()] == [f"trial {trial_id}" for trial_id in more.oracle.start_order]


def test_the_folder_of_a_search_with_another_training_is_refused(aware, make, unsure):
    """Finalists of one epoch and of nine are not to be compared."""
    with pytest.raises(
        DestinationError, match=r"another training \(batch_size=32, epochs=1, now batch_size=32, epochs=9\)"
    ):
        make("aware").search(unsure.x, unsure.y, epochs=9, batch_size=32)


def test_options_of_a_training_are_told_in_a_few_words():
    """Numbers, texts and seeds; no weights of samples, and no callbacks."""
    options = {"seeds": (0, 1), "epochs": 2, "sample_weight": [1.0] * 99, "callbacks": [object()], "class_weight": None}
    assert describe_options(options) == "epochs=2, seeds=(0, 1)"


def test_finalists_that_all_fail_are_told(make, unsure):
    """Whoever asked for a training must know that there was none; the earlier results stay."""
    tuner = make("weights-short", finalists=2)
    with pytest.raises(
        SearchError,
        match="Expected finalists whose training ends well. Received: 2 that failed, the last for: .*tuner.best_plan",
    ):
        tuner.search(unsure.x, unsure.y, epochs=3, sample_weight=np.ones(3))
    assert tuner.best_plan.kind == "deployment"
    count = len(tuner.oracle.trials)
    tuner.search(unsure.x, unsure.y, epochs=1)  # another training, since none has come of the first
    assert [trial.status for trial in finalists(tuner)[0]] == ["COMPLETED"] * 2
    assert len(tuner.oracle.trials) == count


def test_an_oracle_of_keras_tuner_has_every_trial_trained(make, unsure):
    """It knows no finalists."""
    oracle = keras_tuner.oracles.RandomSearchOracle(keras_tuner.Objective("score", "min"), max_trials=2, seed=3)
    tuner = make("foreign", oracle=oracle)
    tuner.search(unsure.x, unsure.y, epochs=1)
    last, others = finalists(tuner)
    assert len(last) == 2
    assert others == []


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"evaluation": "trained"}, InputError, "Expected evaluation to be one of post_training, quantization_aware, training"),
        ({"choices": ("int8", "int16x8")}, PlanError, "Expected choices among int8, int4, float32.*Received: int16x8"),
        ({"samples": 0}, InputError, "Expected samples >= 1, or None for all. Received: 0"),
        ({"finalists": 0}, InputError, "Expected finalists from 1 to below max_trials. Received: 0"),
        ({"finalists": 4, "max_trials": 4}, InputError, "Expected finalists from 1 to below max_trials. Received: 4"),
        ({"evaluation": "training", "choices": ("float32", "int8")}, PlanError, "training precisions"),
        ({"evaluation": "training", "choices": ("float32",)}, InputError, "Expected two or more precisions"),
        (
            {"evaluation": "training", "choices": None, "budget": kp.Budget(max_size_bytes=100)},
            InputError,
            "Expected a budget of max_metric_drop for training plans",
        ),
        (
            {"evaluation": "training", "choices": None, "objective": "size_bytes"},
            InputError,
            "Expected a metric that the model 'unsure' is compiled with",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_judged_so_is_refused_at_once(make, options, error, message):
    """Before any work is done."""
    with pytest.raises(error, match=message):
        make("refused", **options)


def test_what_quantization_loses_may_be_won_back(make, monkeypatch):
    """A drop of the metric is no reason to refuse a search that trains; a size is."""
    checked = []
    monkeypatch.setattr(post_training, "check_reachable", lambda budget, *_: checked.append(budget))
    tuner = make("hopeless", budget=kp.Budget(max_metric_drop=0.0, max_size_bytes=10))
    tuner.mode.evaluator = None
    tuner.mode.check_budget()
    assert checked == [kp.Budget(max_size_bytes=10)]


def test_a_model_without_weights_has_nothing_to_choose(tmp_path):
    """The message says what to do with it."""
    model = keras.Sequential([keras.Input((4,)), keras.layers.ReLU()])
    x = np.ones((8, 4), "float32")
    tuner = kp.PrecisionTuner(model, x, x, ("int8", "float32"), directory=tmp_path, verbose=False)
    with pytest.raises(PlanError, match="Expected layers with weights to choose for.*kp.export_tflite"):
        tuner.search()


def test_training_needs_data_and_a_compiled_model(make, unsure, tmp_path):
    """Each is said before the search."""
    with pytest.raises(DataError, match=r"Expected data to train the finalists with. Received: None"):
        make("no-data").search()
    plain = keras.Sequential.from_config(unsure.model.get_config())
    for evaluation in ("quantization_aware", "training"):
        with pytest.raises(ModelError, match="Expected a compiled model"):
            kp.PrecisionTuner(
                plain, unsure.x[:64], unsure.x_val, evaluation=evaluation, metric=keras.metrics.SparseCategoricalAccuracy(),
                choices=CHOICES[evaluation], directory=tmp_path,
            )  # fmt: skip
    with pytest.raises(DataError, match="Expected training data with as many labels as samples"):
        make("no-data").search(unsure.x, unsure.y[:9])
    with pytest.raises(DataError, match="Expected data that can be read again.*Received: a generator"):
        make("no-data").search((unsure.x[:8], unsure.y[:8]) for _ in range(2))
    with pytest.raises(InputError, match="or an option of fit. Received: epoch. Did you mean 'epochs'"):
        make("no-data").search(unsure.x, unsure.y, epoch=1)
    training, lock = make("no-data-2", evaluation="training", choices=None), threading.Lock()
    for options, message in (
        ({"steps": 0}, "Expected steps to be a whole number >= 1"),
        ({"seeds": ()}, "Expected different seeds"),
        ({"callbacks": lambda name: [lock]}, "that can be sent to another process"),
    ):
        with pytest.raises(InputError, match=message):
            training.search(unsure.x, unsure.y, **options)
    assert not training._project.folder.exists() or training.oracle.trials == {}
    with pytest.raises(InputError, match="Received: shuffle"):
        training.search(unsure.x, unsure.y, shuffle=False)
    with pytest.raises(DataError, match="Expected data to train with"):
        training.search()


SPACE = Space(tuple(Unit(name, (name,), ("float32", "low")) for name in "abc"), "float32")


def test_a_neighbourhood_ends_at_a_plan_that_no_other_next_to_it_beats():
    """A low unit saves 0.2, but the last costs the metric: the search needs only the uniform plans and their neighbours."""
    goal = Goal("step_time_ratio", "min", kp.Budget(max_metric_drop=0.01))
    rounds = Neighbourhood(SPACE, goal)
    plans, order = rounds.first_round(), []
    assert plans == [("float32",) * 3, ("low",) * 3]
    while plans:
        for plan in plans:
            order.append(plan)
            low = plan.count("low")
            rounds.learn(plan, {"step_time_ratio": 1 - 0.2 * low, "metric_drop": 0.1 * (plan[2] == "low")}, [])
        plans = rounds.next_round()
    assert rounds.finalists(1) == [("low", "low", "float32")]
    assert len(order) == len(set(order)) <= 8
    assert order[2] == ("low", "low", "float32")  # the last unit is tried first


def test_a_plan_that_failed_is_not_tried_again():
    """The search goes around it."""
    rounds = Neighbourhood(SPACE, Goal("step_time_ratio", "min", kp.Budget()))
    rounds.learn(SPACE.start, {"step_time_ratio": 1.0}, [])
    rounds.fail(("float32", "float32", "low"))
    assert rounds.next_round() == [("float32", "low", "float32"), ("low", "float32", "float32")]


@pytest.mark.slow
def test_plans_of_training_are_judged_by_compared_runs(tmp_path, rng):
    """Real trainings in processes: figures of every plan, a front, a model in the best plan, and no file."""
    x, y = nets.images(rng, 96)
    keras.utils.set_random_seed(1)
    model = nets.conv(keras)
    model.compile(keras.optimizers.SGD(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
    before = model.get_weights()
    tuner = kp.PrecisionTuner(
        model, choices=("float32", "mixed_bfloat16"), evaluation="training", budget=kp.Budget(max_metric_drop=0.5),
        max_trials=2, directory=tmp_path, verbose=False,
    )  # fmt: skip
    tuner.search(x, y, validation_data=(x, y), epochs=1, batch_size=32, processes=2, timing_seconds=1.0)
    results = tuner.results()
    assert [result.plan.default for result in results] == ["float32", "mixed_bfloat16"]
    for result in results:
        assert result.value("step_time_ratio") > 0
        assert 0 <= result.value("accuracy") <= 1
    assert results[0].value("metric_drop") == 0  # the same run twice, bit by bit
    assert tuner.pareto_front()
    assert tuner.best_plan.kind == "training"
    built = tuner.get_best_models()[0]
    assert kp.plan_of(built).default == tuner.best_plan.default
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.fixture
def compared(monkeypatch):
    """Fake comparisons, in which lower plans take half the time, and mixed_float16 diverges; returns their arguments."""
    asked = []

    def compare(saved, train, validation, runs, **options):
        asked.append({"exists": saved.exists(), "runs": runs, **options})
        low = runs["plan"].default != "float32"
        metric = f"val_{options['metric']}"
        rows = lambda name, ms, worse: kp.Result(  # noqa: E731
            name,
            [
                *(
                    kp.Measurement(f"process {process}", "step_time_ms", ms, step)
                    for process in range(2)
                    for step in range(4)
                ),
                kp.Measurement("fit", "diverged_share", float(worse)),
                kp.Measurement("fit", metric, 0.9),
            ],
        )
        diverges = low and runs["plan"].default == "mixed_float16"
        runs = [rows("plan", 5.0 if low else 10.0, diverges)]
        return kp.Comparison(rows("baseline", 10.0, False), runs, metric=metric)

    monkeypatch.setattr(training_runs, "compare_training", compare)
    return asked


def test_a_training_that_diverges_is_a_failed_trial(tmp_path, rng, compared):
    """Its message says so; the others stay."""
    model = nets.conv(keras)
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    x, y = nets.images(rng, 32)
    tuner = kp.PrecisionTuner(
        model, choices=("float32", "mixed_float16"), evaluation="training", directory=tmp_path, verbose=False,
        groups="model", max_consecutive_failed_trials=2,
    )  # fmt: skip
    tuner.search(x, y, validation_data=(x, y), steps=3)
    assert compared[0]["exists"]
    assert compared[0]["steps"] == 3
    assert compared[0]["metric"] == "accuracy"
    statuses = [tuner.oracle.trials[trial_id].status for trial_id in tuner.oracle.end_order]
    assert statuses == ["COMPLETED", "FAILED"]
    assert "NaN or infinity in 100% of the seeds" in tuner.oracle.trials[tuner.oracle.end_order[1]].message
    assert tuner.best_plan.default == "float32"
    with pytest.raises(
        ExportError, match="a deployment plan to export. Received: a training plan. Train kp.apply_plan"
    ):
        tuner.export_best(tmp_path / "none.tflite")
    shown = front_text(tuner.pareto_front())
    assert shown.splitlines()[-1] == "a  trial 00  step time 1.00x  metric drop 0  all float32"


def judged_by_training(metric, folder):
    """A model that is compiled with a metric, and the options of a tuner of its training plans."""
    model = nets.conv(keras)
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=[metric])
    choices = ("float32", "mixed_bfloat16")
    return model, {"choices": choices, "evaluation": "training", "directory": folder, "verbose": False}


def test_a_metric_is_called_as_it_was_compiled(tmp_path, rng, compared):
    """Keras's logs say mae, where results say mean_absolute_error; one that was not compiled is in no log."""
    x, y = nets.images(rng, 32)
    model, options = judged_by_training("mae", tmp_path)
    tuner = kp.PrecisionTuner(model, groups="model", **options)
    tuner.search(x, y, validation_data=(x, y), steps=3)
    assert compared[0]["metric"] == "mae"
    assert [result.value("mean_absolute_error") for result in tuner.results()] == [0.9, 0.9]
    trial = next(iter(tuner.oracle.trials.values()))
    assert trial.metrics.get_last_value("val_mae") == trial.metrics.get_last_value("val_mean_absolute_error") == 0.9
    with pytest.raises(
        InputError, match="Expected a metric that the model is compiled with: loss, mae. Received: 'top_k"
    ):
        kp.PrecisionTuner(model, metric=keras.metrics.SparseTopKCategoricalAccuracy(name="top_k"), **options)
    empty = keras.Sequential([keras.Input((4,)), keras.layers.ReLU()], name="empty")
    empty.compile("sgd", "mse")
    with pytest.raises(PlanError, match="with weights to choose for. Received: 'empty', with none.*or other groups"):
        kp.PrecisionTuner(empty, metric="loss", **options)


def test_the_folder_of_a_search_with_other_groups_is_refused(tmp_path, rng, compared):
    """The message names them."""
    x, y = nets.images(rng, 32)
    model, options = judged_by_training("accuracy", tmp_path)
    kp.PrecisionTuner(model, groups="model", **options).search(x, y, validation_data=(x, y), steps=3)
    with pytest.raises(DestinationError, match=r"another groups \(model, now stem"):
        kp.PrecisionTuner(model, groups="layer", **options).search(x, y, validation_data=(x, y), steps=3)
    last = list(kp.layer_paths(model))[-1]
    with pytest.raises(DestinationError, match=r"another layers of groups"):
        kp.PrecisionTuner(model, groups={"model": last}, **options).search(x, y, validation_data=(x, y), steps=3)
