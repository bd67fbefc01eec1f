"""Channels whose weights are zero or tiny, as pruning and weight decay leave them, and whose bias is an ordinary number."""

import importlib.util

import numpy as np
import pytest

import keras_precision as kp
from keras_precision.core.errors import ExportError
from keras_precision.export.plan_compiler import PlanCompiler
from keras_precision.quantization import post_training
from keras_precision.runtimes.tflite.flatbuffer import Flatbuffer

LITERT = pytest.importorskip("ai_edge_litert.interpreter", reason='pip install "keras-precision[tflite]"')

BIASES = [0.5, -1, 1.2, 5]
DEAD = 2


def outputs_of(path, samples):
    """The outputs of a file in the order of the model, by LiteRT alone; ``samples`` is by name of input."""
    runner = LITERT.Interpreter(str(path)).get_signature_runner()
    count = len(next(iter(samples.values())))
    rows = [runner(**{name: values[n : n + 1] for name, values in samples.items()}) for n in range(count)]
    return [np.concatenate([row[f"output_{number}"] for row in rows]) for number in range(len(rows[0]))]


def prune(layer, share, axis=-1):
    """Leave a share of the weights of channel 2, in every gate, and give the channels ordinary biases."""
    *kernels, bias = layer.get_weights()
    channels = np.arange(len(BIASES)) == DEAD
    pruned = []
    for kernel in kernels:
        shape = [1] * kernel.ndim
        shape[axis] = kernel.shape[axis]
        small = np.resize(channels, kernel.shape[axis]).reshape(shape)
        pruned.append(kernel * np.where(small, share, 1.0))
    layer.set_weights([*pruned, np.resize(BIASES, bias.shape)])


def every_kernel(keras, share):
    """A model with an output per layer, each with a channel of which a share of the weights is left."""
    keras.utils.set_random_seed(1)
    layers = keras.layers
    image, sequence = layers.Input((8, 8, 4), name="image"), layers.Input((5, 4), name="sequence")
    shared = layers.Dense(4, name="shared")
    outputs = []
    for layer, source, axis in (
        (layers.Conv2D(4, 3, name="convolution"), image, -1),
        (layers.DepthwiseConv2D(3, name="depthwise"), image, -2),
        (layers.Conv2DTranspose(4, 3, name="transpose"), image, -2),
        (layers.Conv2D(4, 3, groups=2, name="grouped"), image, -1),
        (layers.Conv1D(4, 3, name="convolution_1d"), sequence, -1),
        (layers.Dense(4, name="dense"), sequence, -1),
        (layers.SimpleRNN(4, unroll=True, name="recurrent"), sequence, -1),
        (shared, sequence, -1),
    ):
        outputs.append(layer(source))
        prune(layer, share, axis)
    outputs.append(shared(layers.ReLU()(sequence)))  # the same weights, and a bias of another scale
    return keras.Model([image, sequence], outputs, name="pruned")


@pytest.fixture(scope="module", params=[0.0, 1e-3], ids=["zero", "tiny"])
def pruned(stack, request):
    """A model, samples, its outputs, and the calibration on them."""
    random = np.random.default_rng(0)
    samples = {
        "image": random.normal(size=(32, 8, 8, 4)).astype("float32"),
        "sequence": random.normal(size=(32, 5, 4)).astype("float32"),
    }
    model = every_kernel(stack.keras, request.param)
    expected = [np.asarray(output) for output in model.predict([*samples.values()], verbose=0)]
    return model, samples, expected, kp.calibrate(model, samples)


@pytest.mark.every_stack
@pytest.mark.parametrize(("precision", "steps"), [("int8", 255), ("int4", 255), ("int16x8", 2000)])
def test_a_channel_without_weights_keeps_its_bias(pruned, tmp_path, precision, steps):
    """By every kernel, and by two calls of one layer, the channel is within a few steps of the model's."""
    model, samples, expected, calibration = pruned
    kp.export_tflite(model, tmp_path / "model.tflite", precision, calibration, io="float32", calibration="minmax")
    for number, (exact, got) in enumerate(zip(expected, outputs_of(tmp_path / "model.tflite", samples), strict=True)):
        limit = 2 * np.ptp(exact) / steps
        np.testing.assert_allclose(got[..., DEAD], exact[..., DEAD], atol=limit, err_msg=f"output {number}")


def test_only_what_needs_it_is_raised(pruned, monkeypatch):
    """In int8 these are the channels without weights; every other channel stays as the quantizer has made it."""
    model, *_, calibration = pruned
    without_weights = not np.any(model.get_layer("dense").get_weights()[0][:, DEAD])
    job = PlanCompiler(calibration, "minmax").job(kp.PrecisionPlan.deployment("int8"))
    raised = Flatbuffer(post_training.quantize_by_aeq(job))
    monkeypatch.setattr(post_training, "raise_weight_scales", lambda *_: None)
    plain = Flatbuffer(post_training.quantize_by_aeq(job))
    others = np.arange(len(BIASES)) != DEAD
    for before, after in zip(plain.operators, raised.operators, strict=True):
        if plain.kernel(before) in ("CONV_2D", "TRANSPOSE_CONV"):
            old, new = (
                graph.quantized_constant(int(operator.inputs[1]))
                for graph, operator in ((plain, before), (raised, after))
            )
            np.testing.assert_array_equal(old.values[others], new.values[others])
            np.testing.assert_array_equal(old.scales[others], new.scales[others])
            assert (new.scales[DEAD] > old.scales[DEAD]) == without_weights


@pytest.fixture(scope="module")
def trained(stack):
    """A convolution with a pruned channel, and images."""
    keras = stack.keras
    keras.utils.set_random_seed(1)
    image = keras.layers.Input((6, 6, 4), name="image")
    layer = keras.layers.Conv2D(4, 3, name="convolution")
    model = keras.Model(image, layer(image))
    prune(layer, 0.0)
    return model, np.random.default_rng(0).normal(size=(32, 6, 6, 4)).astype("float32")


@pytest.mark.parametrize("engine", ["keras", "tfmot"])
def test_quantization_aware_models_keep_it_too(trained, tmp_path, engine):
    """By either engine the file has the bias that the model has."""
    if engine == "tfmot" and importlib.util.find_spec("tensorflow_model_optimization") is None:
        pytest.skip('pip install "keras-precision[qat]"')
    model, x = trained
    aware = kp.quantize_aware(model, "int8", engine=engine, representative_dataset=x)
    aware.compile("sgd", "mse")
    aware.fit(x, model.predict(x, verbose=0), verbose=0)
    kp.export_tflite(aware, tmp_path / "model.tflite", io="float32")
    expected = np.asarray(aware.predict(x, verbose=0))
    (got,) = outputs_of(tmp_path / "model.tflite", {"image": x})
    assert abs(got[..., DEAD].mean() - expected[..., DEAD].mean()) < 0.05


@pytest.mark.every_stack
def test_a_saturated_bias_is_refused(trained, tmp_path, monkeypatch):
    """A quantizer that saturates a bias is found out from its file, and the layer is named."""
    model, x = trained
    monkeypatch.setattr(post_training, "raise_weight_scales", lambda *_: None)
    with pytest.raises(ExportError, match=r"fit into 32 bits. Received: a saturated one in layer 'convolution'"):
        kp.export_tflite(model, tmp_path / "model.tflite", "int8", x, engine="aeq", calibration="minmax")
    assert not list(tmp_path.iterdir())
