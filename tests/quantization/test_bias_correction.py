"""Bias correction: the mean error of rounded weights taken out, once per layer, and only where that helps."""

import importlib
from dataclasses import replace

import numpy as np
import pytest

import keras_precision as kp
from keras_precision.export import plan_compiler
from keras_precision.export.plan_compiler import PlanCompiler
from keras_precision.quantization.bias_correction import apply_bias_correction
from keras_precision.runtimes.tflite.flatbuffer import Flatbuffer

LITERT = pytest.importorskip("ai_edge_litert.interpreter", reason='pip install "keras-precision[tflite]"')

OUTPUT_AXIS = {"CONV_2D": 0, "FULLY_CONNECTED": 0, "DEPTHWISE_CONV_2D": -1}


def outputs_of(content, samples):
    """The outputs of a file in the order of the model, by LiteRT alone; ``samples`` is by name of input."""
    runner = LITERT.Interpreter(model_content=content).get_signature_runner()
    count = len(next(iter(samples.values())))
    rows = [runner(**{name: values[n : n + 1] for name, values in samples.items()}) for n in range(count)]
    return [np.concatenate([row[f"output_{number}"] for row in rows]) for number in range(len(rows[0]))]


def with_rounded_weights(content, precision):
    """A float file whose weights have the values that integers of a precision stand for."""
    graph = Flatbuffer(content)
    for number, kernel in {int(op.inputs[1]): graph.kernel(op) for op in graph.operators if len(op.inputs) > 1}.items():
        if kernel in OUTPUT_AXIS:
            weights = np.moveaxis(graph.constant(number), OUTPUT_AXIS[kernel], 0)
            largest = 7 if precision == "int4" and kernel != "DEPTHWISE_CONV_2D" else 127
            step = np.abs(weights).max(axis=tuple(range(1, weights.ndim)), keepdims=True) / largest
            rounded = np.moveaxis(np.round(weights / step) * step, 0, OUTPUT_AXIS[kernel])
            graph.set_constant(number, rounded.astype(np.float32))
    return graph.content()


@pytest.fixture(scope="module")
def keras():
    """Keras, of which these tests need one stack alone."""
    return importlib.import_module("keras")


@pytest.fixture(scope="module")
def branches(keras):
    """A calibration of layers side by side that share a bias of zeros, or have none, and its samples.

    Images have one colour, so that the mean of a channel is the same in every place, and the correction exact.
    """
    keras.utils.set_random_seed(2)
    layers = keras.layers
    image, other = layers.Input((4, 4, 6), name="image"), layers.Input((4, 4, 6), name="other")
    twice = layers.Conv2D(6, 1, name="twice")
    outputs = [
        layers.Conv2D(6, 3, name="convolution")(image),
        layers.Conv2D(6, 3, use_bias=False, name="without_bias")(image),
        layers.DepthwiseConv2D(3, depth_multiplier=2, name="depthwise")(image),
        layers.DepthwiseConv2D(3, use_bias=False, name="depthwise_without_bias")(image),
        layers.Dense(6, use_bias=False, name="dense")(layers.Flatten()(image)),
        layers.Dense(6, bias_initializer="ones", name="dense_with_bias")(image),
        twice(image),
        twice(other),
    ]
    model = keras.Model([image, other], outputs)
    random = np.random.default_rng(0)
    colours = random.normal(size=(2, 24, 1, 1, 6)) + random.uniform(1, 3, 6)
    samples = dict(zip(("image", "other"), np.repeat(np.repeat(colours, 4, 2), 4, 3).astype("float32"), strict=True))
    samples["other"] *= 0.5
    return kp.calibrate(model, samples), samples


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_the_mean_error_of_every_channel_is_taken_out(branches, precision):
    """Of every kernel, whether layers share a bias or have none; of a layer that is called twice, over both calls."""
    calibration, samples = branches
    content = calibration.float_file.content
    corrected = apply_bias_correction(content, [precision] * len(Flatbuffer(content).operators), calibration)

    def mean_errors(file):
        rounded = outputs_of(with_rounded_weights(file, precision), samples)
        errors = [
            (got - exact).reshape(-1, exact.shape[-1]).mean(0)
            for got, exact in zip(rounded, exact_outputs, strict=True)
        ]
        return [*errors[:-2], errors[-2] + errors[-1]]

    exact_outputs = outputs_of(content, samples)
    for number, (before, after) in enumerate(zip(mean_errors(content), mean_errors(corrected), strict=True)):
        assert np.abs(before).max() > 1e-3, number
        np.testing.assert_allclose(after, 0, atol=1e-5, err_msg=f"output {number}")


def test_operators_in_float_keep_their_biases(branches):
    """Rounding no weights needs no correction: the outputs are the same, bit by bit."""
    calibration, samples = branches
    content = calibration.float_file.content
    formats = [("float32", "int8_dynamic")[number % 2] for number in range(len(Flatbuffer(content).operators))]
    same = apply_bias_correction(content, formats, calibration)
    for before, after in zip(outputs_of(content, samples), outputs_of(same, samples), strict=True):
        np.testing.assert_array_equal(before, after)


def test_layers_without_statistics_or_room_keep_their_biases(keras, branches, rng):
    """No mean of the input, no correction; a layer without bias that is called twice gets none, for its bytes."""
    dense = keras.layers.Dense(4, use_bias=False)
    inputs = keras.Input((4,), name="x")
    twice = kp.calibrate(keras.Model(inputs, dense(dense(inputs))), rng.normal(size=(8, 4)).astype("float32") + 1)
    for calibration in (replace(branches[0], seen={}), twice):
        content = calibration.float_file.content
        formats = ["int8"] * len(Flatbuffer(content).operators)
        assert apply_bias_correction(content, formats, calibration) == Flatbuffer(content).content()


def stacked(keras):
    """Convolutions of equal width without bias, over sequences: a regression."""
    keras.utils.set_random_seed(4)
    inputs = hidden = keras.Input((48, 4), name="x")
    for _ in range(5):
        hidden = keras.layers.Conv1D(16, 3, padding="same", activation="relu", use_bias=False)(hidden)
    return keras.Model(inputs, keras.layers.Dense(1)(keras.layers.GlobalAveragePooling1D()(hidden)))


def separable(keras):
    """Depthwise and pointwise convolutions without bias, over images: a classifier."""
    keras.utils.set_random_seed(5)
    inputs = hidden = keras.Input((12, 12, 3), name="x")
    hidden = keras.layers.Conv2D(16, 3, use_bias=False, activation="relu")(hidden)
    for _ in range(3):
        hidden = keras.layers.DepthwiseConv2D(3, padding="same", use_bias=False)(hidden)
        hidden = keras.layers.Conv2D(16, 1, use_bias=False, activation="relu")(hidden)
    return keras.Model(inputs, keras.layers.Dense(4)(keras.layers.GlobalAveragePooling2D()(hidden)))


def recurrent(keras):
    """An unrolled recurrent layer, whose steps share weights and bias."""
    keras.utils.set_random_seed(3)
    inputs = keras.Input((10, 6), name="x")
    steps = keras.layers.SimpleRNN(12, unroll=True, bias_initializer=keras.initializers.RandomNormal(stddev=0.5))(
        inputs
    )
    return keras.Model(inputs, keras.layers.Dense(3)(steps))


@pytest.mark.parametrize(
    ("build", "precision", "gain"), [(stacked, "int8", 4), (separable, "int4", 1), (recurrent, "int16x8", -0.5)]
)
def test_files_gain_by_it(keras, tmp_path, rng, build, precision, gain):
    """On other samples than those of the calibration, in dB of signal to noise."""
    model = build(keras)
    x = (rng.normal(size=(300, *model.input_shape[1:])) + 1).astype("float32")
    calibration, expected = kp.calibrate(model, x[:200]), model.predict(x[200:], verbose=0)
    snr = {}
    for corrected in (True, False):
        kp.export_tflite(
            model, tmp_path / "model.tflite", precision, calibration,
            calibration="minmax", bias_correction=corrected, io="float32",
        )  # fmt: skip
        (got,) = outputs_of((tmp_path / "model.tflite").read_bytes(), {"x": x[200:]})
        snr[corrected] = 10 * np.log10(np.square(expected - expected.mean(0)).sum() / np.square(got - expected).sum())
    assert snr[True] >= snr[False] + gain, snr


def harmful(content, formats, _calibration, _weights, **_options):
    """A correction in the wrong direction, of the operators that are to be corrected."""
    graph = Flatbuffer(content)
    for operator, precision in zip(graph.operators, formats, strict=True):
        if precision != "float32" and graph.kernel(operator) == "CONV_2D":
            number = graph.own_constant([operator], 2)
            graph.set_constant(number, graph.constant(number) + 1)
    return graph.content()


def test_a_correction_that_harms_is_left_out(branches, monkeypatch):
    """The file is then that without; that it harms is seen on the samples in the calibration, if there are any."""
    monkeypatch.setattr(plan_compiler, "apply_bias_correction", harmful)
    compiled = {}
    for precision in ("int8", "int4", "int16x8"):
        for held in (branches[0].held, {}):
            compiler = {
                on: PlanCompiler(replace(branches[0], held=held), "minmax", bias_correction=on) for on in (True, False)
            }
            files = [compiler[on](kp.PrecisionPlan.deployment(precision)) for on in (True, False)]
            compiled[precision, bool(held)] = files[0] == files[1]
    assert compiled == {key: key[1] for key in compiled}
