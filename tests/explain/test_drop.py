"""explain_drop: who is hurt, which layer is to blame, and the plan that mends it, on a net with a planted fault."""

import numpy as np
import pytest

import keras_precision as kp
from keras_precision.core.errors import DataError, FileFormatError, InputError, PlanError, UnknownPrecisionError
from keras_precision.explain.drop import _quantizing_plan
from keras_precision.explain.prediction_changes import ReferencePredictions
from keras_precision.findings.quantization_rules import drop_findings
from keras_precision.scoring.scores import predicted_classes


def planted(keras):
    """A net whose layer 'coarse' has one large weight a channel, of an input that is almost 0, beside small ones that decide.

    With 4-bit weights the step is that of the large one, and the small ones become 0.
    """
    layers = keras.layers
    features = layers.Input((4,), name="features")
    hidden = layers.Dense(3, use_bias=False, name="coarse")(features)
    model = keras.Model(features, layers.Dense(3, activation="softmax", name="head")(hidden), name="planted")
    model.get_layer("coarse").set_weights([np.concatenate([np.full((1, 3), 100.0), np.eye(3)])])
    model.get_layer("head").set_weights([4 * np.eye(3), np.zeros(3)])
    return model


@pytest.fixture(scope="module")
def setting(tmp_path_factory):
    """The net, its int4 file, samples with their classes, a calibration, and what is explained of them."""
    import keras

    folder, rng = tmp_path_factory.mktemp("planted"), np.random.default_rng(0)
    model = planted(keras)
    x = rng.normal(size=(150, 4)).astype("float32")
    x[:, 0] *= 1e-4
    y = predicted_classes(model.predict(x, verbose=0))
    calibration = kp.calibrate(model, x[:100])
    path = folder / "int4.tflite"
    kp.export_tflite(model, path, "int4", calibration)
    before = [weight.copy() for weight in model.get_weights()]
    explained = kp.explain_drop(model, path, x, y, calibration, slices={"first": y == 0, "none": y > 5})
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    return model, path, x, y, calibration, explained


def test_every_group_is_counted(setting):
    """All, each class and each slice have their changes; classes add up to all; the counts are NumPy's."""
    _, path, x, y, _, explained = setting
    got = predicted_classes(kp.edge.predict(path, x))
    assert explained.value("samples", "all") == 150
    assert explained.value("changed_samples", "all") == np.sum(got != y)
    assert explained.value("accuracy", "all") == np.mean(got == y)
    assert explained.value("float_accuracy", "all") == 1.0
    for metric in ("samples", "changed_samples", "lost_samples", "won_samples"):
        classes = [explained.value(metric, f"class {number}") for number in range(3)]
        assert sum(classes) == explained.value(metric, "all")
    assert explained.value("lost_samples", "slice first") == np.sum((got != 0) & (y == 0))
    assert explained.value("samples", "slice none") == 0
    assert explained.value("p_value", "all") < 1e-6
    rows = explained.select("changed_answer")
    assert len(rows) == np.sum(got != y)
    number = int(rows[0].subject.removeprefix("sample "))
    assert rows[0].value == f"{y[number]} -> {got[number]} (true: {y[number]})"


def test_the_planted_layer_is_to_blame(setting):
    """Alone it does all the damage, without it there is none, and it is the one that the plan keeps."""
    explained = setting[-1]
    layers = [row.subject for row in explained.select("changed_kept_alone")]
    assert layers == ["coarse", "head"]
    assert explained.value("changed_kept_alone", "coarse") == 0
    assert explained.value("changed_lowered_alone", "coarse") > 0.3
    assert explained.value("changed_lowered_alone", "head") == 0
    assert explained.value("changed_kept_alone", "head") > 0.3
    assert [row.subject for row in explained.select("changed_share")] == ["whole plan", "keep 1: coarse"]
    assert explained.plan == kp.PrecisionPlan.deployment("int4", layers={"coarse": "float32"})
    assert "0 with it in float32" in explained.plan.reasons["coarse"]
    assert explained.value("changed_samples", "plan") == 0
    assert explained.value("latency_ratio", "plan") > 0
    assert explained.notes == ()


def test_the_plan_can_be_exported_and_mends(setting, tmp_path):
    """The file of the plan that was found answers as the float model does."""
    model, _, x, y, calibration, explained = setting
    kp.export_tflite(model, tmp_path / "mended.tflite", explained.plan, calibration)
    assert kp.evaluate(tmp_path / "mended.tflite", x, y, reference=model).value("agreement") == 1.0


def test_the_rules_name_whom_and_what(setting):
    """Groups that lose more than chance explains are found, and the layer; those without loss are not."""
    findings = kp.diagnose(setting[-1])
    assert set(findings) == set(drop_findings(setting[-1]))
    assert ("sensitive-layer", "coarse") in {(each.code, each.subject) for each in findings}
    hurt = {each.subject for each in findings if each.code == "group-hurt"}
    assert "all" in hurt
    assert "slice none" not in hurt
    assert not any(setting[-1].value("lost_samples", name) == 0 for name in hurt)


def test_an_activation_goes_with_its_operator(tmp_path, rng):
    """A depthwise layer that stayed in int8 under int4, and the ReLU in the same operator, are kept together."""
    import keras

    layers = keras.layers
    keras.utils.set_random_seed(0)
    inner = [layers.Conv2D(8, 3, padding="same"), layers.DepthwiseConv2D(3, name="deep"), layers.ReLU(name="relu")]
    head = [layers.GlobalAveragePooling2D(), layers.Dense(3, activation="softmax")]
    model = keras.Sequential([keras.Input((8, 8, 3)), *inner, *head])
    x = rng.normal(size=(32, 8, 8, 3)).astype("float32")
    written = kp.export_tflite(model, tmp_path / "narrow.tflite", "int4", x)
    assert dict(written.plan.layers) == {"deep": "int8", "relu": "int8"}
    explained = kp.explain_drop(model, tmp_path / "narrow.tflite", x, np.arange(32) % 3, verbose=False)
    assert explained.value("changed_kept_alone", "deep") <= 1


def test_layers_can_be_kept_in_integers(setting):
    """With keep, layers stay in 16-bit activations where those are enough: here the weights get 8 bits again."""
    model, path, x, y, calibration, _ = setting
    explained = kp.explain_drop(model, path, x, y, calibration, keep="int8", win_back=0.5)
    assert explained.plan.layers["coarse"] == "int8"
    assert explained.value("changed_samples", "plan") < explained.value("changed_samples", "all") / 2


def test_where_nothing_changed_there_is_nothing_to_win_back(setting, tmp_path):
    """A file that answers alike is its own plan; labels may come in a dataset."""
    import tensorflow as tf

    model, _, x, y, calibration, _ = setting
    plan = kp.PrecisionPlan.deployment("float32", layers={"head": "int8"})
    kp.export_tflite(model, tmp_path / "fine.tflite", plan, calibration)
    dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(64)
    explained = kp.explain_drop(model, tmp_path / "fine.tflite", dataset, samples=40)
    assert explained.value("changed_samples", "all") == 0
    assert explained.plan == plan
    assert [row.subject for row in explained.select("changed_kept_alone")] == ["head"]
    assert any("nothing to recover" in note for note in explained.notes)
    assert drop_findings(explained) == ()


def test_a_regression_changes_where_it_is_far_off(setting, tmp_path):
    """Numbers count as changed beyond the tolerance; errors before and after are told, and no class."""
    import keras

    model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(2, name="sizes")])
    x = setting[2]
    y = model.predict(x, verbose=0)
    kp.export_tflite(model, tmp_path / "sizes.tflite", "int4", x)
    strict, loose = (
        kp.explain_drop(model, tmp_path / "sizes.tflite", x, y, tolerance=tolerance) for tolerance in (1e-3, 50)
    )
    assert strict.value("changed_samples", "all") > loose.value("changed_samples", "all") == 0
    one = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(1, name="size")])
    y = one.predict(x, verbose=0)[:, 0]
    kp.export_tflite(one, tmp_path / "size.tflite", "int4", x)
    explained = kp.explain_drop(one, tmp_path / "size.tflite", x, y, tolerance=1e-3)
    assert explained.value("float_mean_absolute_error", "all") < explained.value("mean_absolute_error", "all")
    assert not [row for row in explained if row.subject.startswith("class")]
    assert "->" in explained.select("changed_answer")[0].value


def test_what_cannot_be_explained(setting, tmp_path):
    """Wrong shares, slices, labels and files are refused with what to do."""
    import keras

    model, path, x, y, calibration, _ = setting
    for options, error, message in (
        ({"win_back": 2}, InputError, "Expected win_back between 0 and 1"),
        ({"samples": 0}, InputError, "samples >= 1"),
        ({"keep": "int7"}, UnknownPrecisionError, "int7"),
        ({"keep": "int4"}, PlanError, "Expected a layer with two precisions to choose from"),
        ({"slices": {"faint": y}}, DataError, r"Expected truth values of shape \(150,\) for the slice 'faint'"),
        ({"y": y[:5]}, DataError, "Expected as many labels as samples"),
        ({"y": np.zeros((150, 7, 2))}, DataError, "Expected a class per prediction"),
    ):
        arguments = {"y": y, "representative_dataset": calibration, **options}
        with pytest.raises(error, match=message):
            kp.explain_drop(model, path, x, **arguments)
    kp.export_tflite(model, tmp_path / "float.tflite", "float32")
    with pytest.raises(PlanError, match="Expected a file in a lower precision than float32"):
        kp.explain_drop(model, tmp_path / "float.tflite", x, y)
    kept = kp.PrecisionPlan.deployment("int8", layers={"coarse": "float32", "head": "float32"})
    kp.export_tflite(model, tmp_path / "kept.tflite", kept, calibration)
    with pytest.raises(
        PlanError, match="Expected a file with quantized layers that could be in float32. Received: one without"
    ):
        kp.explain_drop(model, tmp_path / "kept.tflite", x, y, calibration)
    (tmp_path / "bare.tflite").write_bytes(calibration.float_file.content)
    with pytest.raises(FileFormatError, match="with a card inside. Received: one without"):
        kp.explain_drop(model, tmp_path / "bare.tflite", x, y)
    with pytest.raises(FileFormatError, match="m.tflite: expected a card with the plan of the file. Received: one"):
        _quantizing_plan(None, "m.tflite")
    with pytest.raises(DataError, match=r"labels of the predictions' shape \(4, 1\). Received: \(4, 3\)"):
        ReferencePredictions.of(np.full((4, 1), 7.0), np.ones((4, 3)), 0.1)
    inputs = keras.layers.Input((4,))
    two = keras.Model(inputs, [keras.layers.Dense(2)(inputs), keras.layers.Dense(1)(inputs)], name="two")
    kp.export_tflite(two, tmp_path / "two.tflite", "float16")
    with pytest.raises(DataError, match="Expected a model with one output. Received: 'two' with 2"):
        kp.explain_drop(two, tmp_path / "two.tflite", x, y)


def test_the_tables_show_it(setting):
    """render draws the accuracy drop per class, the layers and the steps, and leaves single samples to the result."""
    text = kp.render(setting[-1])
    for part in (
        "Accuracy drop per class",
        "slice first",
        "Most sensitive layers",
        "coarse",
        "keep 1: coarse",
        "times as long",
    ):
        assert part in text
    assert "sample 1" not in text
    assert kp.render(setting[-1], "markdown").count("### ") == 3


def test_from_a_shell(setting, tmp_path, capsys):
    """The verb prints the tables and writes the plan; findings are warnings, so that the exit code is 0."""
    from keras_precision.cli.main import main

    model, path, x, y, *_ = setting
    model.save(tmp_path / "model.keras")
    np.savez(tmp_path / "test.npz", x=x, y=y)
    arguments = [
        "explain",
        tmp_path / "model.keras",
        path,
        "--data",
        tmp_path / "test.npz",
        "--recover",
        "0.75",
        "-o",
        tmp_path / "plan.json",
    ]
    assert main(list(map(str, arguments))) == 0
    assert "sensitive-layer" not in (shown := capsys.readouterr().out)
    assert "With only 'coarse' in float" in shown
    assert kp.PrecisionPlan.load(tmp_path / "plan.json").layers == {"coarse": "float32"}
