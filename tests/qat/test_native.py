"""Quantization-aware training in Keras 3: what is rounded where, how it trains, and what it leaves alone."""

import warnings

import litert
import nets
import numpy as np
import pytest

import keras_precision as kp
from keras_precision.core.errors import ExportError, InputError, ModelError, PlanError, UnknownPrecisionError

every_stack = pytest.mark.every_stack


@pytest.fixture(scope="module")
def keras(stack):
    """Keras 3 with the backend under test."""
    if stack.name == "tf_keras":
        pytest.skip("tf_keras has no native quantization-aware training")
    return stack.keras


@pytest.fixture(scope="module")
def knowing(keras):
    """A convolutional net that was trained a little, the images that it knows, and a calibration of it."""
    keras.utils.set_random_seed(5)
    model = nets.conv(keras)
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
    x, y = nets.images(np.random.default_rng(20261123), 96)
    model.fit(x, y, batch_size=16, epochs=12, verbose=0)
    return model, x, y, kp.calibrate(model, x[:32])


def sites(model):
    """Path and name of each range of a model, with its ends as numbers."""
    from keras_precision.quantization.qat.layers.model_surgery import wrappers

    return {
        (path, name): [float(np.asarray(each.low)), float(np.asarray(each.high))]
        for path, wrapper in wrappers(model).items()
        for name, each in wrapper.sites.items()
    }


@every_stack
def test_a_wrapped_layer_trains_on_every_backend(keras, rng, tmp_path):
    """By hand, without any conversion: ranges follow the batches, saved and loaded it trains on as it would have."""
    layers = keras.layers
    keras.utils.set_random_seed(1)
    image = layers.Input((12, 12, 1))
    x = kp.QuantizeWrapper(layers.Conv2D(4, 3, activation="swish", name="conv"), quantize_input=True)(image)
    x = kp.QuantizeWrapper(layers.AveragePooling2D(2, name="pool"))(x)
    x = kp.QuantizeWrapper(layers.BatchNormalization(name="norm"), freeze_norm_after=3)(x)
    x = kp.QuantizeWrapper(layers.SeparableConv2D(4, 3, name="separable"), "int4", learned_ranges=True)(x)
    x = kp.QuantizeWrapper(layers.GlobalAveragePooling2D(name="mean"), start_after=2)(x)
    model = keras.Model(image, kp.QuantizeWrapper(layers.Dense(3, activation="softmax", name="head"))(x))
    assert list(kp.layer_paths(model)) == ["conv", "pool", "norm", "separable", "mean", "head"]
    images, classes = nets.images(rng, 32)
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    model.fit(images, classes, batch_size=8, verbose=0, shuffle=False)
    found = sites(model)
    assert found["conv", "input"][0] >= 0
    assert all(low < high for low, high in found.values())
    model.save(tmp_path / "half.keras")
    loaded = keras.models.load_model(tmp_path / "half.keras")
    losses = [
        each.fit(images, classes, batch_size=8, verbose=0, shuffle=False).history["loss"] for each in (model, loaded)
    ]
    assert losses[0] == losses[1]
    np.testing.assert_array_equal(model.predict(images, verbose=0), loaded.predict(images, verbose=0))
    assert np.isfinite(losses).all()


def test_activations_are_what_the_integers_stand_for(keras, rng):
    """Rounding, clipping and the zero point are those of the file's own tensors."""
    from keras_precision.quantization.qat.layers.fake_quant import fake_quantize
    from keras_precision.runtimes.model_info import Tensor

    low, high = -0.7, 2.9
    scale = (high - low) / 255
    tensor = Tensor("t", (1,), "int8", scale, round(-128 - low / scale))
    values = rng.normal(size=500).astype("float32") * 2
    expected = tensor.dequantize(tensor.quantize(values))
    np.testing.assert_allclose(np.asarray(fake_quantize(values, low, high)), expected, atol=1e-6)
    assert len(np.unique(expected)) > 100


def test_folding_a_normalization_changes_the_scale_alone(keras, rng):
    """``Q(s w) = s Q(w)`` for one factor s for each output channel, also a negative one, in 8 bits and in 4."""
    from keras_precision.quantization.qat.layers.fake_quant import fake_quantize_weights

    weights = rng.normal(size=(3, 3, 5, 4)).astype("float32")
    factors = np.array([0.3, -2.0, 1e-3, 17.0], "float32")
    for levels in (127, 7):
        folded = np.asarray(fake_quantize_weights(weights * factors, (-1,), levels))
        np.testing.assert_allclose(
            folded, np.asarray(fake_quantize_weights(weights, (-1,), levels)) * factors, rtol=1e-5
        )
        assert len(np.unique(np.round(folded[..., 3] / np.abs(folded[..., 3]).max() * levels))) <= 2 * levels + 1


@every_stack
def test_the_copy_answers_nearly_as_the_model_and_leaves_it_alone(knowing):
    """Start ranges come from data; the model keeps its weights, optimizer and answers, and the copy is compiled."""
    model, x, _, seen = knowing
    weights, config = [each.copy() for each in model.get_weights()], model.get_config()
    answers = model.predict(x, verbose=0)
    aware = kp.quantize_aware(model, "int8", representative_dataset=seen)
    assert list(kp.layer_paths(aware)) == nets.CONV_PATHS
    found = sites(aware)
    assert found["stem", "input"] == pytest.approx([0, x[:32].max()], abs=0.3)
    assert ("stem", "output") not in found  # its kernel goes on to the activation
    assert found["stem_relu", "output"][0] == 0
    assert ("stem_norm", "output") not in found
    got = aware.predict(x, verbose=0)
    assert 0 < np.abs(got - answers).max() < 0.1
    aware.fit(x, np.zeros(len(x)), batch_size=32, verbose=0)
    assert aware.optimizer is not model.optimizer
    for before, after in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)
    assert model.get_config() == config
    np.testing.assert_array_equal(model.predict(x, verbose=0), answers)


def test_the_file_keeps_what_was_trained(knowing, tmp_path):
    """The scales in the file are those of training, no data are needed, and it answers as the model does, in 8 and 4 bits."""
    from keras_precision.runtimes.tflite.flatbuffer import Flatbuffer

    model, x, y, seen = knowing
    for plan, kernel in (("int8", "CONV_2D int8"), ("int4", "CONV_2D int4")):
        aware = kp.quantize_aware(model, plan, representative_dataset=seen)
        aware.fit(x, y, batch_size=16, epochs=2, verbose=0)
        path = tmp_path / f"{plan}.tflite"
        result = kp.export_tflite(aware, path, validation_data=(x, y))
        assert result.value("operator_count", kernel) == 2
        assert result.value("calibration_method") == "trained"
        assert result.value("agreement") >= 0.97
        assert result.value("foreign_ranges") == 0
        scales = sorted(scale for scale, _ in Flatbuffer(path.read_bytes()).scales().values())
        expected = sorted([(max(high, 0) - min(low, 0)) / 255 for low, high in sites(aware).values()] + [1 / 256])
        np.testing.assert_allclose(scales, expected, rtol=1e-5)
        assert np.abs(kp.edge.predict(path, x) - aware.predict(x, verbose=0)).max() <= 4 / 256


def test_data_change_nothing_of_what_was_trained(knowing, tmp_path):
    """Biases learned to live with rounded weights: no correction of them by data, which are for ranges alone."""
    model, x, y, seen = knowing
    aware = kp.quantize_aware(model, "int4", representative_dataset=seen)
    aware.fit(x, y, batch_size=16, epochs=1, verbose=0)
    paths = [tmp_path / name for name in ("without.tflite", "with.tflite")]
    kp.export_tflite(aware, paths[0])
    kp.export_tflite(aware, paths[1], representative_dataset=x)
    answers = [kp.edge.predict(path, x) for path in paths]
    np.testing.assert_array_equal(*answers)


def test_training_recovers_what_four_bits_lose(keras, rng):
    """Of the error that 4-bit weights add to a fitted function, training takes away a good part."""
    keras.utils.set_random_seed(2)
    x = rng.normal(size=(256, 8)).astype("float32")
    y = np.tanh(x @ rng.normal(size=(8, 3))).astype("float32")
    layers = keras.layers
    model = keras.Sequential([layers.Input((8,)), layers.Dense(32, activation="relu"), layers.Dense(3)])
    model.compile(keras.optimizers.Adam(0.01), "mse")
    model.fit(x, y, epochs=60, verbose=0)
    aware = kp.quantize_aware(model, "int4", representative_dataset=x)
    exact, coarse = model.evaluate(x, y, verbose=0), aware.evaluate(x, y, verbose=0)
    for rate, epochs in ((0.002, 20), (0.0004, 10)):
        aware.optimizer.learning_rate = rate
        aware.fit(x, y, epochs=epochs, verbose=0)
    assert coarse > 1.3 * exact
    assert aware.evaluate(x, y, verbose=0) < exact + 0.75 * (coarse - exact)


def test_back_to_a_plain_model(knowing):
    """The plain model has the trained weights and the first one's classes and names."""
    model, x, y, seen = knowing
    aware = kp.quantize_aware(model, "int8", representative_dataset=seen)
    aware.fit(x, y, batch_size=16, verbose=0)
    plain = kp.from_quantize_aware(aware)
    assert [(type(a), a.name) for a in plain.layers] == [(type(b), b.name) for b in model.layers]
    trained_kernel, kernel = plain.get_layer("stem").get_weights()[0], model.get_layer("stem").get_weights()[0]
    assert np.abs(trained_kernel - kernel).max() > 1e-4
    np.testing.assert_array_equal(trained_kernel, aware.get_layer("stem").layer.get_weights()[0])
    assert np.abs(plain.predict(x, verbose=0) - aware.predict(x, verbose=0)).max() < 0.1


def test_mixed_plans_by_layer(knowing, tmp_path):
    """Each layer trains, and is exported, in its own precision; a float layer keeps its weights unrounded."""
    model, x, y, seen = knowing
    plan = kp.PrecisionPlan.deployment("int8", layers={"pointwise": "int4", "head": "float32"})
    aware = kp.quantize_aware(model, plan, representative_dataset=seen)
    assert type(aware.get_layer("head")).__name__ == "Dense"
    result = kp.export_tflite(aware, tmp_path / "mixed.tflite", validation_data=(x, y))
    assert result.plan.layers["head"] == "float32"
    assert result.value("operator_count", "CONV_2D int4") == 1
    assert result.value("operator_count", "CONV_2D int8") == 1
    with pytest.raises(PlanError, match="which was trained for int4"):
        kp.export_tflite(aware, tmp_path / "other.tflite", "int8")
    assert not (tmp_path / "other.tflite").exists()


def test_ranges_freeze_and_quantization_starts_late(knowing):
    """Until its start the model is the float one; frozen ranges stay, averaged ones move."""
    model, x, y, seen = knowing
    late = kp.quantize_aware(model, "int4", representative_dataset=seen, start_after=6, freeze_after=2)
    np.testing.assert_allclose(late.predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-5)
    late.fit(x, y, batch_size=32, verbose=0)  # three steps
    after_three = sites(late)
    late.fit(x, y, batch_size=32, verbose=0)
    assert sites(late) == after_three
    plain = kp.from_quantize_aware(late).predict(x, verbose=0)
    assert np.abs(late.predict(x, verbose=0) - plain).max() > 1e-3  # six steps: it has begun
    moving = kp.quantize_aware(model, representative_dataset=seen)
    before = sites(moving)
    moving.fit(x, y, batch_size=32, verbose=0)
    assert sites(moving) != before
    fixed = kp.quantize_aware(model, representative_dataset=seen, ranges="fixed")
    fixed.fit(x, y, batch_size=32, verbose=0)
    assert sites(fixed) == before


def test_learned_ranges_are_trained(knowing):
    """Their gradients reach the optimizer, and their ends stay in order."""
    model, x, y, seen = knowing
    aware = kp.quantize_aware(model, "int4", representative_dataset=seen, ranges="learned")
    before = sites(aware)
    aware.fit(x, y, batch_size=16, epochs=2, verbose=0)
    assert sites(aware) == before  # where it started
    stretches = [np.asarray(each.value) for each in aware.trainable_variables if each.path.endswith("stretch")]
    assert len(stretches) == len(before)
    assert sum(np.abs(each).max() > 1e-3 for each in stretches) >= len(stretches) - 1


def test_normalizations_freeze_late(knowing):
    """After the given steps the moving statistics stay, while the weights go on."""
    model, x, y, seen = knowing
    aware = kp.quantize_aware(model, representative_dataset=seen, freeze_norm_after=3)
    norm = aware.get_layer("stem_norm").layer
    first = np.asarray(norm.moving_mean.value)
    aware.fit(x, y, batch_size=32, verbose=0)
    then = np.asarray(norm.moving_mean.value)
    weights = aware.get_layer("stem").layer.get_weights()[0]
    aware.fit(x, y, batch_size=32, verbose=0)
    assert np.abs(then - first).max() > 0
    np.testing.assert_array_equal(then, np.asarray(norm.moving_mean.value))
    assert np.abs(weights - aware.get_layer("stem").layer.get_weights()[0]).max() > 0


def test_a_model_saved_half_way_trains_on_as_if_nothing_had_been(keras, rng, tmp_path):
    """Ranges, step counts and the optimizer come back with the file."""
    model = keras.Sequential(
        [
            keras.Input((8,)),
            keras.layers.Dense(16, name="hidden"),
            keras.layers.BatchNormalization(name="norm"),
            keras.layers.Dense(3, activation="softmax", name="head"),
        ]
    )
    x, y = nets.classes(rng)
    aware = kp.quantize_aware(model, "int4", representative_dataset=x, freeze_after=9, freeze_norm_after=8)
    aware.compile("adam", "sparse_categorical_crossentropy")
    aware.fit(x, y, batch_size=16, verbose=0, shuffle=False)
    aware.save(tmp_path / "half.keras")
    loaded = keras.models.load_model(tmp_path / "half.keras")
    for each in (aware, loaded):
        each.fit(x, y, batch_size=16, epochs=2, verbose=0, shuffle=False)
    assert sites(aware) == sites(loaded)
    np.testing.assert_array_equal(aware.predict(x, verbose=0), loaded.predict(x, verbose=0))


def test_mixed_precision_rounds_on_the_same_grid(keras, rng):
    """Layers that compute in bfloat16 are quantized from float32, and train."""
    with kp.precision("mixed_bfloat16"):
        model = nets.mlp(keras, head="float32")
    x, y = nets.classes(rng)
    aware = kp.quantize_aware(model, "int8", representative_dataset=x)
    assert aware.get_layer("hidden").compute_dtype == "bfloat16"
    aware.compile("adam", "sparse_categorical_crossentropy")
    assert np.isfinite(aware.fit(x, y, verbose=0).history["loss"]).all()
    assert np.abs(aware.predict(x, verbose=0) - model.predict(x, verbose=0)).max() < 0.15


@pytest.mark.parametrize("build", [nets.nested, nets.unnamed, nets.two_inputs])
def test_models_of_every_shape(keras, rng, tmp_path, build):
    """Nested and shared layers, layers that Keras named, several inputs and outputs: trained and exported."""
    keras.utils.set_random_seed(3)
    model = build(keras)
    x = {tensor.name: rng.uniform(size=(24, *tensor.shape[1:])).astype("float32") for tensor in model.inputs}
    data = x if len(x) > 1 else next(iter(x.values()))
    aware = kp.quantize_aware(model, "int8", representative_dataset=data)
    assert list(kp.layer_paths(aware)) == list(kp.layer_paths(model))
    for got, wanted in zip(_flat(aware.predict(data, verbose=0)), _flat(model.predict(data, verbose=0)), strict=True):
        assert np.abs(got - wanted).max() < 0.1 * np.abs(wanted).max()
    result = kp.export_tflite(aware, tmp_path / "model.tflite", representative_dataset=data)
    assert result.value("foreign_ranges") == 0


def test_masks_are_passed_on_and_back(keras, rng):
    """Layers that accept no mask are wrapped and unwrapped where one is passed, and those behind still obey it."""
    layers = keras.layers
    tokens = rng.integers(1, 9, (16, 6)).astype("int32")
    tokens[:, 4:] = 0
    words = layers.Input((6,), dtype="int32", name="words")
    hidden = layers.Dense(4, activation="relu", name="hidden")(layers.Embedding(9, 4, mask_zero=True)(words))
    model = keras.Model(words, layers.Dense(2)(layers.LSTM(3, name="memory")(hidden)))
    aware = kp.quantize_aware(model, "int8", representative_dataset=tokens)
    plain = kp.from_quantize_aware(aware)
    np.testing.assert_allclose(plain.predict(tokens, verbose=0), model.predict(tokens, verbose=0), atol=1e-6)
    assert np.abs(aware.predict(tokens, verbose=0) - model.predict(tokens, verbose=0)).max() < 0.05


@pytest.mark.parametrize("joined", ["", "Add", "Concatenate"])
def test_a_dense_layer_computes_in_the_range_that_was_trained(keras, rng, tmp_path, joined):
    """A large bias before another dense layer, alone or beside an input of the model, which has a range of its own."""
    from ai_edge_litert.interpreter import Interpreter

    layers = keras.layers
    values = layers.Input((5,))
    hidden = layers.Dense(5, name="linear")(values)
    both = getattr(layers, joined)()([values, hidden]) if joined else hidden
    model = keras.Model(values, layers.Dense(4, name="head")(both))
    model.get_layer("linear").bias.assign([6.0, -5.0, 7.0, 4.0, -8.0])
    model.get_layer("head").bias.assign([1.0, 2.0, -1.0, 0.5])
    x = rng.normal(size=(64, 5)).astype("float32")
    aware = kp.quantize_aware(model, "int8", representative_dataset=x)
    expected = aware.predict(x, verbose=0)
    for data in (None, x):
        kp.export_tflite(aware, tmp_path / "model.tflite", representative_dataset=data, io="float32")
        interpreter = Interpreter(str(tmp_path / "model.tflite"))
        interpreter.allocate_tensors()
        received = []
        for sample in x:
            interpreter.set_tensor(interpreter.get_input_details()[0]["index"], sample[np.newaxis])
            interpreter.invoke()
            received.append(interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0])
        steps = np.abs(np.array(received) - expected) / (np.ptp(expected) / 255)
        assert (
            np.mean(steps <= 1.01) > 0.9
        )  # a sum that is rounded the other way before the layer is more than a step behind it
        assert steps.max() < 4


def _scaled(keras, kind):
    """Return a layer of preprocessing, and the layers after it."""
    layers = keras.layers
    if kind == "Normalization":
        return [layers.Normalization(mean=[3.0, 0.5, -40.0], variance=[4.0, 0.01, 9.0])]
    if kind == "inverted":
        return [layers.Normalization(mean=[3.0, 0.5, 120.0], variance=[4.0, 0.01, 9.0], invert=True)]
    first = {
        "Rescaling": lambda: layers.Rescaling(1 / 9, -1.0),
        "Dropout": lambda: layers.Rescaling(1 / 9),
        "scalar": lambda: layers.Normalization(axis=None, mean=3.0, variance=81.0),
        "operation": lambda: lambda values: values / 255,
    }[kind]()
    return [layers.Dropout(0.1), first, layers.Dense(4)] if kind == "Dropout" else [first, layers.Dense(4)]


@pytest.mark.parametrize("kind", ["Normalization", "inverted", "Rescaling", "Dropout", "scalar", "operation"])
def test_what_scales_an_input_is_followed(keras, rng, tmp_path, kind):
    """Kernels of its own have ranges of their own; where the next kernel scales, the input's range is that before."""
    inputs = values = keras.layers.Input((3,), name="values")
    for layer in _scaled(keras, kind):
        values = layer(values)
    model = keras.Model(inputs, values)
    x = (rng.normal(size=(64, 3)) * [2.0, 0.1, 3.0] + [3.0, 0.5, -40.0]).astype("float32")
    aware = kp.quantize_aware(model, "int8", representative_dataset=x)
    kp.export_tflite(aware, tmp_path / "model.tflite", representative_dataset=x, io="float32")
    (received,) = litert.predict(tmp_path / "model.tflite", {"values": x})
    expected = aware.predict(x, verbose=0)
    if kind == "operation":  # training sees the input exactly, as no layer can round it
        assert np.abs(expected - model.predict(x, verbose=0)).max() < np.ptp(expected) / 30
    else:
        assert np.mean(np.abs(received - expected) <= 1.01 * np.ptp(expected) / 255) == 1


def _flat(answers):
    return answers if isinstance(answers, list) else [answers]


@every_stack
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "SimpleRNN", "Bidirectional"])
def test_recurrent_layers_compute_with_rounded_kernels(keras, rng, kind):
    """Unrolled, every kernel has at most 15 values a channel in 4 bits; as a loop, which the file keeps in float, it is exact."""
    layers, x = keras.layers, rng.normal(size=(8, 5, 3)).astype("float32")
    answers = {}
    for unroll in (True, False):
        keras.utils.set_random_seed(4)
        inner = layers.LSTM(4, unroll=unroll) if kind == "Bidirectional" else None
        layer = (
            layers.Bidirectional(inner, name="cells")
            if inner
            else getattr(layers, kind)(4, unroll=unroll, name="cells")
        )
        model = keras.Sequential([layers.Input((5, 3)), layer])
        wrapped = kp.QuantizeWrapper(layer, "int4", quantize_output=False)
        exact, coarse = model.predict(x, verbose=0), keras.ops.convert_to_numpy(wrapped(x))
        answers[unroll] = np.abs(exact - coarse).max()
        wrapped(x)
        np.testing.assert_array_equal(model.predict(x, verbose=0), exact)  # the layer's own kernels are as they were
    assert answers[True] > 1e-3
    assert answers[False] < 1e-6


def test_a_recurrent_net_keeps_what_was_trained(keras, rng, tmp_path):
    """Unrolled, its file has products in integers, and answers as the model does."""
    layers = keras.layers
    keras.utils.set_random_seed(4)
    model = keras.Sequential([layers.Input((6, 3)), layers.LSTM(8, unroll=True), layers.Dense(3, activation="softmax")])
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    x = rng.normal(size=(96, 6, 3)).astype("float32")
    y = x[:, :, :].sum(1).argmax(1)
    model.fit(x, y, epochs=10, verbose=0)
    aware = kp.quantize_aware(model, "int8", representative_dataset=x)
    aware.fit(x, y, epochs=1, verbose=0)
    result = kp.export_tflite(aware, tmp_path / "lstm.tflite", representative_dataset=x, validation_data=(x, y))
    kinds = {row.subject for row in result.select("operator_count")}
    assert "FULLY_CONNECTED int8" in kinds
    assert not {kind for kind in kinds if kind.endswith("float32")}
    assert result.value("agreement") >= 0.97


def test_a_rule_of_the_users_own(keras, rng):
    """A custom layer with weights is refused by name, until it has a rule."""

    class Scaled(keras.layers.Layer):
        def build(self, shape):
            self.factor = self.add_weight(shape=(shape[-1],), initializer="uniform", name="factor")

        def call(self, inputs):
            return keras.ops.relu(inputs * self.factor)

    features = keras.Input((8,))
    model = keras.Model(features, keras.layers.Dense(2, name="head")(Scaled(name="scaled")(features)))
    with pytest.raises(ModelError, match="'scaled' of type Scaled.*register_quantize_rule"):
        kp.quantize_aware(model)
    plan = kp.PrecisionPlan.deployment("int8", layers={"scaled": "float32"})
    assert kp.quantize_aware(model, plan).get_layer("scaled").precision == "float32"  # it feeds an integer layer
    kp.register_quantize_rule(Scaled, kp.QuantizeRule({"factor": ()}))
    aware = kp.quantize_aware(model, representative_dataset=rng.normal(size=(16, 8)).astype("float32"))
    assert aware.get_layer("scaled").precision == "int8"
    with pytest.raises(InputError, match="Expected a class of layers and a kp.QuantizeRule"):
        kp.register_quantize_rule(Scaled, "int8")


def test_what_cannot_be_trained_is_refused(keras, rng):
    """Each refusal comes before any work, says what to do, and leaves the model as it was."""
    model = nets.mlp(keras)
    weights = [each.copy() for each in model.get_weights()]
    aware = kp.quantize_aware(model)
    cases = [
        (ModelError, "Wrap it: x = keras.Input", lambda: kp.quantize_aware(nets.subclassed(keras))),
        (ModelError, "already. Train it", lambda: kp.quantize_aware(aware)),
        (PlanError, "leaves every layer in float32", lambda: kp.quantize_aware(model, "float32")),
        (PlanError, "'hidden' in float16", lambda: kp.quantize_aware(model, "float16")),
        (UnknownPrecisionError, "int9", lambda: kp.quantize_aware(model, "int9")),
        (InputError, "Expected engine", lambda: kp.quantize_aware(model, engine="qkeras")),
        (InputError, "Expected ranges", lambda: kp.quantize_aware(model, ranges="guessed")),
        (InputError, "freeze_after", lambda: kp.quantize_aware(model, freeze_after=-1)),
        (InputError, "representative data for ranges='fixed'", lambda: kp.quantize_aware(model, ranges="fixed")),
        (ModelError, "Expected a quantization-aware model", lambda: kp.from_quantize_aware(model)),
        (ModelError, "wrapped already", lambda: kp.QuantizeWrapper(kp.QuantizeWrapper(keras.layers.Dense(2)))),
        (UnknownPrecisionError, "int16x8", lambda: kp.QuantizeWrapper(keras.layers.Dense(2), "int16x8")),
        (InputError, "momentum", lambda: kp.QuantizeWrapper(keras.layers.Dense(2), momentum=1.0)),
        (InputError, "training steps", lambda: kp.QuantizeWrapper(keras.layers.Dense(2), start_after=-1)),
        (ModelError, "Expected a layer of Keras 3", lambda: kp.QuantizeWrapper("dense")),
    ]
    for error, message, call in cases:
        with pytest.raises(error, match=message):
            call()
    for before, after in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)
    quantized = keras.models.clone_model(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras's own, on its InputLayer
        quantized.quantize("int8")
    with pytest.raises(ModelError, match="keras.Model.quantize"):
        kp.quantize_aware(quantized)


def test_a_layer_without_get_config_is_refused(keras):
    """The message of Keras is kept, and what to do."""

    class Closed(keras.layers.Layer):
        def __init__(self, size):
            super().__init__(name="closed")
            self.size = size

        def call(self, inputs):
            return inputs + self.size

        def get_config(self):
            raise NotImplementedError("no configuration")

    features = keras.Input((8,))
    model = keras.Model(features, keras.layers.Dense(2)(Closed(np.float32(2))(features)))
    with pytest.raises(ModelError, match="no configuration.*get_config"):
        kp.quantize_aware(model)


def test_ranges_that_training_did_not_follow_need_data(keras, rng, tmp_path):
    """A model that never saw a batch cannot be exported without data, and nothing is written."""
    from keras_precision.core.errors import DataError

    aware = kp.quantize_aware(nets.mlp(keras))
    with pytest.raises(DataError, match="training has not followed"):
        kp.export_tflite(aware, tmp_path / "model.tflite")
    assert not list(tmp_path.iterdir())
    x, y = nets.classes(rng)
    kp.export_tflite(aware, tmp_path / "model.tflite", representative_dataset=x)
    aware.compile("adam", "sparse_categorical_crossentropy")
    aware.fit(x, y, verbose=0)
    kp.export_tflite(aware, tmp_path / "model.tflite")


def test_ranges_that_weights_have_outgrown_are_told(keras, rng, tmp_path):
    """No kernel multiplies by so much: the file is not called damaged, and nothing is written."""
    x, _ = nets.classes(rng, 64)
    aware = kp.quantize_aware(nets.mlp(keras), "int8", representative_dataset=x)
    for variable in aware.trainable_variables:
        if variable.path.endswith("kernel"):
            variable.assign(variable * 1e10)
    path = tmp_path / "huge.tflite"
    with pytest.raises(ExportError, match="Expected a quantized file that runs.*smaller learning rate"):
        kp.export_tflite(aware, path, "int8", x)
    assert not path.exists()


def test_layers_that_code_builds_are_refused(keras):
    """Those inside a subclassed part cannot be replaced; the message names them."""

    class Part(keras.Model):
        def __init__(self, **options):
            super().__init__(**options)
            self.inner = keras.layers.Dense(4, name="inner")

        def call(self, inputs):
            return self.inner(inputs)

    features = keras.Input((8,))
    model = keras.Model(features, keras.layers.Dense(2, name="head")(Part(name="part")(features)))
    with pytest.raises(ModelError, match="'part/inner', inside a subclassed model"):
        kp.quantize_aware(model)
