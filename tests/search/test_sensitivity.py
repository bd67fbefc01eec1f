"""sensitivity: one layer at a time, from files that are compiled and run."""

import keras
import numpy as np
import pytest

import keras_precision as kp
from keras_precision.core.errors import DataError, InputError, ModelError, PlanError, UnknownPrecisionError


@pytest.fixture(scope="module")
def swept(trained):
    """Each layer alone in int4, the others in int8, with labels."""
    return kp.sensitivity(
        trained.model, trained.x[:64], validation_data=(trained.x_val, trained.y_val), metric="accuracy"
    )


def test_every_layer_that_can_be_quantized_is_quantized_alone(swept):
    """Convolutions and dense layers have a row in int4; a depthwise convolution has no int4 kernel, and none."""
    subjects = [row.subject for row in swept.select("divergence")]
    layers = ["stem in int4", "pointwise in int4", "head in int4"]
    assert subjects == ["float model", "all in int8", *layers, "inputs and outputs in float32"]


def test_a_lowered_layer_costs_less_and_diverges_more(swept):
    """Four bits a weight need fewer bit operations, and move the answers away from the float model's."""
    assert swept.value("bit_operations", "pointwise in int4") < swept.value("bit_operations", "all in int8")
    assert swept.value("divergence", "pointwise in int4") > swept.value("divergence", "all in int8") > 0
    assert swept.value("divergence", "float model") == 0
    drop = swept.value("accuracy", "float model") - swept.value("accuracy", "stem in int4")
    assert swept.value("metric_drop", "stem in int4") == pytest.approx(drop)


def test_four_bits_halve_the_weights_of_a_layer():
    """The rest of the file stays as it is, but for its card, which names the plan."""
    model = keras.Sequential(
        [keras.Input((64,)), keras.layers.Dense(128, bias_initializer="random_uniform", name="wide")]
    )
    x = np.random.default_rng(0).normal(size=(32, 64)).astype("float32")
    swept = kp.sensitivity(model, x)
    saved = swept.value("size_bytes", "all in int8") - swept.value("size_bytes", "wide in int4")
    assert saved == pytest.approx(64 * 128 / 2, abs=256)


def test_bit_operations_are_those_of_the_net(swept):
    """Products of one sample, counted by hand from the shapes, times 8 x 8 bits, or 4 x 8 for the lowered layer."""
    macs = {"stem": 144 * 8 * 9, "depthwise": 144 * 8 * 9, "pointwise": 144 * 8 * 8, "head": 8 * 3}
    assert swept.value("bit_operations", "all in int8") == 64 * sum(macs.values())
    assert swept.value("bit_operations", "stem in int4") == 64 * sum(macs.values()) - 32 * macs["stem"]


def test_the_figures_are_those_of_the_exported_file(swept, trained, tmp_path):
    """A plan exported by itself answers, weighs and scores as the sweep says; the size is an upper bound within 2 %."""
    plan = kp.PrecisionPlan.deployment("int8", layers={"stem": "int4"})
    path = tmp_path / "stem.tflite"
    written = kp.export_tflite(trained.model, path, plan, trained.x[:64], engine="aeq")
    scored = kp.evaluate(path, trained.x_val, trained.y_val)
    assert scored.value("accuracy") == swept.value("accuracy", "stem in int4")
    said = swept.value("size_bytes", "stem in int4")
    assert written.value("size_bytes") <= said <= 1.02 * written.value("size_bytes")


def test_without_labels_and_from_a_calibration(trained):
    """A calibration serves as the data of the ranges; the files are then run on the samples of validation_data."""
    calibration = kp.calibrate(trained.model, trained.x[:64])
    choices = ("float32", "int8", "int16x8")
    result = kp.sensitivity(
        trained.model, calibration, choices, validation_data=trained.x_val, samples=16, latency=True
    )
    assert result.environment.sources["divergence"] == "16 samples"
    assert result.plan == kp.PrecisionPlan.deployment("int8")
    assert result.value("latency_ms", "depthwise in float32") > 0
    assert result.select("accuracy") == ()
    with pytest.raises(DataError, match="Received: a calibration, which holds none. Pass validation_data=x"):
        kp.sensitivity(trained.model, calibration)


def test_the_table_shows_the_most_sensitive_layer_first(swept):
    """Rows are sorted by divergence, and their bars are as long as that says."""
    table = kp.render(swept, format="markdown").splitlines()
    rows = [line.split("|") for line in table if " in int" in line or line.startswith("| float model")]
    lines = [row[2] for row in rows]
    divergences = [swept.value("divergence", row[1].strip()) for row in rows]
    assert len(rows) == 5  # the model, int8, and three layers in int4
    assert divergences == sorted(divergences, reverse=True)
    assert [line.count("█") for line in lines] == sorted((line.count("█") for line in lines), reverse=True)
    assert lines[0].count("█") == 16
    assert lines[-1].count("█") == 0


@pytest.mark.parametrize(
    ("choices", "error", "message"),
    [
        ("int8", InputError, "two or more precisions to choose from, each once. Received: ('int8',)"),
        (("int8", "int8"), InputError, "each once. Received: ('int8', 'int8')"),
        (("int8", "int3"), UnknownPrecisionError, "Expected a choice to be one of the deployment precisions"),
        (("int8", "mixed_float16"), UnknownPrecisionError, "'mixed_float16' is a training precision"),
    ],
)
def test_choices_that_cannot_be_used_are_refused(trained, choices, error, message):
    """One choice is no choice, and a precision must be one of files."""
    with pytest.raises(error, match=message.replace("(", r"\(").replace(")", r"\)")):
        kp.sensitivity(trained.model, trained.x, choices)


def test_choices_that_the_runtime_lacks_are_refused(trained):
    """TensorFlow Lite Micro has no kernels of floats with int8 weights, so that no layer can have them there."""
    with pytest.raises(
        PlanError, match="computes layers of this model in. Received: 'int8_dynamic', which none of its 4"
    ):
        kp.sensitivity(trained.model, trained.x[:16], ("int8", "int8_dynamic"), runtime="tflm")
    with pytest.raises(InputError, match="Expected runtime to be one of"):
        kp.sensitivity(trained.model, trained.x[:16], runtime="abacus")


def test_a_model_without_a_choice_is_refused(trained):
    """A model whose only layer with weights is a depthwise convolution has no int4, and nothing to choose."""
    import keras

    image = keras.Input((6, 6, 2))
    model = keras.Model(image, keras.layers.DepthwiseConv2D(3, name="only")(image))
    with pytest.raises(PlanError, match="Received: 'int4', which none of its 1 layers"):
        kp.sensitivity(model, np.ones((4, 6, 6, 2), "float32"))


def test_data_and_metrics_that_do_not_fit_are_refused(trained):
    """Labels must be there for a metric, as many as samples, and a name must be that of a compiled metric."""
    with pytest.raises(DataError, match="Expected labels for the metric 'accuracy'. Received: samples alone"):
        kp.sensitivity(trained.model, trained.x, metric="accuracy")
    with pytest.raises(DataError, match="Received: 3 labels for 64 samples"):
        kp.sensitivity(trained.model, trained.x, validation_data=(trained.x_val, trained.y_val[:3]), metric="accuracy")
    with pytest.raises(DataError, match=r"Expected samples of shape \(n, 12, 12, 1\)"):
        kp.sensitivity(trained.model, trained.x, validation_data=trained.x_val[:, :5])
    with pytest.raises(InputError, match="Received: 'precision'; it is compiled with accuracy. .*Compile it with"):
        kp.sensitivity(trained.model, trained.x, metric="precision")
    with pytest.raises(ModelError, match="Expected a Keras model"):
        kp.sensitivity("model.keras", trained.x)
