"""evaluate and benchmark: models and files under one interface, on every stack."""

import nets
import numpy as np
import pytest

import keras_precision as kp
from keras_precision.core.errors import DataError, FileFormatError, InputError, ModelError
from keras_precision.verify.evaluate import _scored

pytestmark = pytest.mark.every_stack


@pytest.fixture
def trained(stack, rng):
    """A net that knows three clusters, and the data."""
    stack.keras.utils.set_random_seed(5)
    model = nets.mlp(stack.keras)
    model.compile(stack.keras.optimizers.Adam(0.05), "sparse_categorical_crossentropy", metrics=["accuracy"])
    x, y = nets.classes(rng, 64)
    model.fit(x, y, epochs=10, verbose=0)
    return model, x, y


def test_model_and_its_file_score_alike(stack, trained, tmp_path):
    """A model, its .keras file and its .tflite file get the same figures, and those that Keras gives."""
    model, x, y = trained
    expected = model.evaluate(x, y, verbose=0, return_dict=True)["accuracy"]
    targets = [model]
    if stack.name != "tf_keras":  # a .keras file is loaded by Keras 3
        model.save(tmp_path / "model.keras")
        targets.append(tmp_path / "model.keras")
    if stack.exports:
        kp.export_tflite(model, tmp_path / "model.tflite", "float32")
        targets.append(str(tmp_path / "model.tflite"))
    for target in targets:
        result = kp.evaluate(target, x, y, ["accuracy", "sparse_categorical_crossentropy"], reference=model)
        assert result.value("accuracy") == pytest.approx(expected)
        assert result.value("agreement") == 1.0
        assert result.value("samples") == 64
        assert 0 < result.value("sparse_categorical_crossentropy") < 1
        assert bool(result.select("size_bytes")) == (target is not model)


def test_regression_is_scored_by_its_own_metrics(stack, rng):
    """Errors of a regression are those that NumPy gives."""
    model = stack.keras.Sequential([stack.keras.layers.Input((8,)), stack.keras.layers.Dense(1)])
    x, y = rng.normal(size=(20, 8)).astype("float32"), rng.normal(size=20)
    result = kp.evaluate(model, x, y, ["mae", "mse"])
    errors = model.predict(x, verbose=0)[:, 0] - y
    assert result.value("mean_absolute_error") == pytest.approx(np.mean(np.abs(errors)))
    assert result.value("mean_squared_error") == pytest.approx(np.mean(errors**2))


def test_functions_and_metric_objects_are_taken(trained):
    """A metric may be a function of truth and predictions, or a Keras metric."""
    import keras

    model, x, y = trained

    def top(truth, predictions):
        return predictions.max(axis=-1)

    result = kp.evaluate(model, x, y, [keras.metrics.SparseTopKCategoricalAccuracy(k=3, name="top3"), top])
    assert result.value("top3") == 1.0
    assert result.value("top") == pytest.approx(float(model.predict(x, verbose=0).max(axis=-1).mean()), rel=1e-5)


def test_evaluate_changes_nothing(trained):
    """Weights, compiled metrics and plan of the model are as before."""
    model, x, y = trained
    before = [weight.copy() for weight in model.get_weights()]
    result = kp.evaluate(model, x, y)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert result.plan == kp.plan_of(model)


def test_benchmark_times_calls(stack, trained, tmp_path):
    """Model and file are timed under one interface; the result says how."""
    model, x, _ = trained
    targets = [model]
    if stack.exports:
        kp.export_tflite(model, tmp_path / "model.tflite", "int8", x)
        targets.append(tmp_path / "model.tflite")
    for target in targets:
        result = kp.benchmark(target, x, warmup=1, min_calls=5, min_seconds=0)
        assert result.value("latency_samples") == 5
        assert 0 < result.value("latency_ms") <= result.value("latency_p95_ms")
        assert result.value("samples_per_second") == pytest.approx(1e3 / result.value("latency_ms"))
        assert (
            result.environment.sources["latency_ms"]
            == "one call after the other, of 1 sample(s) each; 1 warm-up calls left out"
        )


def test_benchmark_of_batches(trained):
    """A batch of a Keras model counts as so many samples."""
    model, x, _ = trained
    result = kp.benchmark(model, x, batch_size=16, warmup=1, min_calls=5, min_seconds=0)
    assert result.value("samples_per_second") == pytest.approx(16e3 / result.value("latency_ms"))


def test_several_inputs(stack, rng):
    """Inputs are taken as a dict or in the model's order."""
    keras = stack.keras
    model = nets.two_inputs(keras)
    x = {"a_table": rng.normal(size=(6, 4)), "z_image": rng.uniform(size=(6, 12, 12, 1))}
    kind = keras.Model(model.inputs, model.outputs[0])
    named = kp.evaluate(kind, x, np.zeros(6, int))
    ordered = kp.evaluate(kind, (x["z_image"], x["a_table"]), np.zeros(6, int))
    assert named.value("accuracy") == ordered.value("accuracy")
    assert kp.benchmark(kind, x, batch_size=4, warmup=0, min_calls=2, min_seconds=0).value("latency_samples") == 2


def test_several_outputs(stack, rng, tmp_path):
    """Each output has its own metrics and labels, by name or in order; model and file get the same figures."""
    model = nets.two_inputs(stack.keras)
    x = {"a_table": rng.normal(size=(6, 4)), "z_image": rng.uniform(size=(6, 12, 12, 1))}
    kinds, sizes = rng.integers(0, 3, 6), rng.normal(size=6)
    answers = model.predict(tuple(x[name].astype("float32") for name in ("z_image", "a_table")), verbose=0)
    result = kp.evaluate(model, x, {"kind": kinds, "size": sizes}, {"kind": ["accuracy"], "size": "mae"})
    assert result.value("accuracy", "kind") == np.mean(answers[0].argmax(-1) == kinds)
    assert result.value("mean_absolute_error", "size") == pytest.approx(np.mean(np.abs(answers[1][:, 0] - sizes)))
    ordered = kp.evaluate(model, x, (kinds, sizes), [["accuracy"], ["mae"]])
    assert ordered.measurements == result.measurements
    if not stack.exports:
        return
    kp.export_tflite(model, tmp_path / "model.tflite", "float32")
    path, metrics = tmp_path / "model.tflite", {"kind": "accuracy", "size": ["mae", "mse"]}
    read = kp.evaluate(path, x, (kinds, sizes), metrics, reference=model)
    assert read.value("accuracy", "kind") == result.value("accuracy", "kind")
    assert read.value("snr_db", "size") > 80
    alone = kp.evaluate(path, x, (kinds, sizes), {"output_1": "mse"})
    assert alone.value("mean_squared_error", "output_1") == read.value("mean_squared_error", "size")


@pytest.mark.parametrize("metrics", [None, [], {}, {"kind": [], "size": []}, [[], []]])
def test_a_comparison_needs_no_labels(stack, rng, metrics):
    """Without labels, what a reference tells of each output is told, in whatever form there are no metrics."""
    model = nets.two_inputs(stack.keras)
    x = (rng.uniform(size=(6, 12, 12, 1)), rng.normal(size=(6, 4)))
    result = kp.evaluate(model, x, None, metrics, reference=model)
    assert {(row.subject, row.metric) for row in result.select("snr_db")} == {("kind", "snr_db"), ("size", "snr_db")}
    assert (
        kp.evaluate(
            stack.keras.Model(model.inputs, model.outputs[0]), x, reference=model.predict(x, verbose=0)[0]
        ).value("agreement")
        == 1.0
    )


def test_outputs_that_are_not_told_apart(stack, rng):
    """Metrics and labels of several outputs must say which they are for."""
    model = nets.two_inputs(stack.keras)
    x, y = (rng.uniform(size=(6, 12, 12, 1)), rng.normal(size=(6, 4))), (np.zeros(6, int), np.zeros(6))
    for labels, metrics, error, message in (
        (y, ["mae"], InputError, "Expected metrics for each of the outputs kind, size. Received: a list of 1"),
        (y, None, InputError, "Expected metrics for each of the outputs kind, size. Received: None"),
        (y, {"kinds": "mae"}, InputError, "Received: 'kinds'. Did you mean 'kind'"),
        (y[:1], [["accuracy"], ["mae"]], DataError, "Expected labels for each of the outputs kind, size.*tuple of 1"),
        ({"size": y[1]}, {"kind": "accuracy"}, DataError, "Expected labels for the output 'kind'"),
    ):
        with pytest.raises(error, match=message):
            kp.evaluate(model, x, labels, metrics)


def test_figures_of_a_metric_that_has_several(stack, trained):
    """A metric with a figure for each class gives a row for each, and its state is as it was before."""
    model, x, y = trained
    metric = stack.keras.metrics.F1Score(average=None)
    truth = np.eye(3, dtype="float32")[y]
    metric.update_state(truth[:5], truth[:5])
    before = np.asarray(metric.result())
    result = kp.evaluate(model, x, truth, [metric])
    assert [row.metric for row in result][:3] == ["f1_score_0", "f1_score_1", "f1_score_2"]
    np.testing.assert_array_equal(np.asarray(metric.result()), before)
    with pytest.raises(InputError, match="Expected a metric: a name, a function or an object of Keras. Received: 3"):
        kp.evaluate(model, x, y, [3])


def test_subclassed_models_are_scored(stack, rng):
    """A model whose call is written by hand answers as any other."""
    x, y = nets.classes(rng, 12)
    model = nets.subclassed(stack.keras)
    assert kp.evaluate(model, x, y % 2).value("samples") == 12
    assert kp.benchmark(model, x, batch_size=4, warmup=1, min_calls=2, min_seconds=0).value("latency_samples") == 2


def labelled(keras, form, x, y):
    """Samples with their labels, in a form that fit takes, the last batch smaller."""
    import tensorflow as tf

    starts = range(0, len(x), 10)
    if form == "tf.data":
        return tf.data.Dataset.from_tensor_slices((x, y)).batch(10)
    if form == "generator":
        return ((x[start : start + 10], y[start : start + 10], np.ones(10)) for start in starts)
    if form == "DataLoader":
        torch = pytest.importorskip("torch")
        return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*map(torch.as_tensor, (x, y))), batch_size=10)

    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return len(starts)

        def __getitem__(self, index):
            return x[10 * index : 10 * index + 10], y[10 * index : 10 * index + 10]

    return Batches()


@pytest.mark.parametrize("form", ["tf.data", "PyDataset", "DataLoader", "generator"])
def test_labels_come_with_what_fit_takes(stack, trained, tmp_path, form):
    """A dataset brings its labels, to a model and to its file alike, and both are asked but once."""
    import keras

    model, x, y = trained
    targets = [model]
    if stack.exports:
        kp.export_tflite(model, tmp_path / "model.tflite", "float32")
        targets.append(tmp_path / "model.tflite")
    for target in targets:
        result = kp.evaluate(
            target,
            labelled(keras, form, x, y),
            metrics=["accuracy", "sparse_categorical_crossentropy"],
            reference=model,
        )
        assert result.value("accuracy") == kp.evaluate(model, x, y).value("accuracy")
        assert result.value("agreement") == 1.0
        assert result.value("samples") == 64


def test_datasets_that_bring_no_labels(trained):
    """Without labels there is nothing to score, unless nothing is asked for but agreement."""
    import tensorflow as tf

    model, x, y = trained
    bare = tf.data.Dataset.from_tensor_slices(x).batch(10)
    with pytest.raises(DataError, match=r"Expected batches \(samples, labels\).*Pass the labels as y"):
        kp.evaluate(model, bare)
    with pytest.raises(DataError, match="Expected labels: y, or a dataset.*Received: y=None, and x of type ndarray"):
        kp.evaluate(model, x)
    with pytest.raises(DataError, match="Expected at least one sample.*yields nothing"):
        kp.evaluate(model, iter(()))
    with pytest.raises(
        DataError, match=r"Expected 4 labels for a batch of 4 samples. Received: labels of shape \(3,\)"
    ):
        kp.evaluate(model, iter([(x[:4], y[:3])]))
    assert kp.evaluate(model, bare, metrics=[], reference=model).value("agreement") == 1.0
    assert kp.evaluate(model, bare, y).value("samples") == 64


def test_agreement_of_a_regression_is_unknown(stack, rng):
    """A single number that is no probability names no class; how far answers are off is told by snr_db."""
    model = stack.keras.Sequential([stack.keras.layers.Input((8,)), stack.keras.layers.Dense(1)])
    x = rng.normal(size=(20, 8)).astype("float32") * 9
    answers = model.predict(x, verbose=0)
    result = kp.evaluate(model, x, metrics=(), reference=answers + 0.1)
    assert result.value("agreement") is None
    expected = 10 * np.log10(np.sum((answers + 0.1) ** 2) / (20 * 0.01))
    assert result.value("snr_db") == pytest.approx(expected, abs=0.01)
    with pytest.raises(DataError, match=r"Expected predictions of 1 output\(s\) as the reference. Received: 2"):
        kp.evaluate(model, x, metrics=(), reference={"a": answers, "b": answers})


def test_files_take_what_models_take(stack, trained, tmp_path):
    """NaN is treated alike by a model and by its file."""
    model, x, y = trained
    targets = [model]
    if stack.exports:
        kp.export_tflite(model, tmp_path / "model.tflite", "int8", x)
        targets.append(tmp_path / "model.tflite")
    for target in targets:
        with pytest.raises(DataError, match="NaN or infinite"):
            kp.evaluate(target, np.full_like(x, np.nan), y)


def test_targets_that_cannot_be_opened(tmp_path, rng):
    """Missing, foreign and damaged files, and things that are no model, each say what they are."""
    x, y = nets.classes(rng, 4)
    (tmp_path / "model.pb").write_bytes(b"")
    (tmp_path / "model.keras").write_bytes(rng.bytes(500))
    with pytest.raises(FileNotFoundError, match="which does not exist"):
        kp.evaluate(tmp_path / "none.tflite", x, y)
    with pytest.raises(InputError, match=r"Expected a Keras model, or the path of a .keras, .h5 or .tflite file"):
        kp.benchmark(tmp_path / "model.pb", x)
    with pytest.raises(FileFormatError, match="expected a .keras file. Received: an empty, truncated or foreign file"):
        kp.evaluate(tmp_path / "model.keras", x, y)
    with pytest.raises(ModelError, match="Received: an object of type builtins.int"):
        kp.evaluate(3, x, y)


def test_samples_that_have_no_form_are_refused(rng):
    """A subclassed model takes arrays, or datasets with labels in them."""
    import keras

    with pytest.raises(DataError, match="Expected as many labels as samples. Received: 3 labels for 4 samples"):
        list(_scored("head", [], np.zeros(3), np.zeros(4)))
    with pytest.raises(ModelError, match="Expected a Keras model"):
        kp.evaluate(keras.layers.Dense(1), np.ones((4, 3), "float32"), np.zeros(4), ["accuracy"])
    model = nets.subclassed(keras)
    with pytest.raises(DataError, match="for the subclassed model 'written'. Received: .* and separate labels"):
        kp.evaluate(model, lambda: iter([np.ones((4, 3), "float32")]), np.zeros(4), ["accuracy"])


def test_bad_arguments(trained):
    """Labels, metrics and counts that cannot be used are refused."""
    model, x, y = trained
    with pytest.raises(DataError, match="Expected as many labels as samples. Received: 3 labels for 64 samples"):
        kp.evaluate(model, x, y[:3])
    with pytest.raises(
        InputError, match=r"Expected metrics among acc, accuracy.*or any of Keras. Received: 'no such metric'"
    ):
        kp.evaluate(model, x, y, ["no such metric"])
    with pytest.raises(DataError, match=r"Expected samples of shape \(n, 8\)"):
        kp.evaluate(model, x[:, :3], y)
    with pytest.raises(InputError, match="Expected batch_size >= 1. Received: 0"):
        kp.benchmark(model, x, batch_size=0)
    with pytest.raises(InputError, match="Expected warmup >= 0"):
        kp.benchmark(model, x, warmup=-1)
    for options in ({"threads": 2}, {"per_operator": True}):
        with pytest.raises(InputError, match="Expected a .tflite file for threads and per_operator"):
            kp.benchmark(model, x, **options)


def test_zeros_are_timed_where_no_samples_are_given(stack, trained, rng):
    """A model that tells its inputs can be timed without data; another cannot."""
    model, *_ = trained
    timed = kp.benchmark(model, batch_size=3, warmup=0, min_calls=2, min_seconds=0)
    assert timed.value("samples_per_second") == pytest.approx(3e3 / timed.value("latency_ms"))
    free = stack.keras.Sequential([stack.keras.layers.Input((None, 4)), stack.keras.layers.Dense(1)])
    with pytest.raises(DataError, match="Expected samples to run. Received: none, for an input of free size"):
        kp.benchmark(free)
    with pytest.raises(DataError, match="Expected samples to run. Received: none, for a subclassed model"):
        kp.benchmark(nets.subclassed(stack.keras))
