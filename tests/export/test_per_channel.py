"""One scale for each output of a dense layer, or one for all, by request or by the memory that a runtime needs."""

import nets
import numpy as np
import pytest

import keras_precision as kp
from keras_precision.core.errors import InputError, PlanError


@pytest.fixture(scope="module")
def keras(stack):
    """Keras, where it exports in this process."""
    if stack.name != "tensorflow":
        pytest.skip("files are the same on every stack")
    return stack.keras


def scales(path):
    """The number of scales of the weights of every operator that has some, by kernel, as LiteRT reads the file."""
    from keras_precision.runtimes.tflite.flatbuffer import Flatbuffer

    graph = Flatbuffer(path.read_bytes())
    found = {}
    for operator in graph.operators:
        constant = graph.quantized_constant(int(operator.inputs[1])) if len(operator.inputs) > 2 else None
        if constant is not None:
            found.setdefault(graph.kernel(operator), set()).add(constant.scales.size)
    return found


@pytest.mark.parametrize("engine", ["aeq", "converter"])
def test_dense_layers_alone_have_one_scale(keras, rng, tmp_path, engine):
    """Convolutions keep theirs, and the file still predicts as the model does."""
    keras.utils.set_random_seed(1)
    model, (x, y) = nets.conv(keras), nets.images(rng)
    path = tmp_path / "model.tflite"
    for per_channel, expected in ((None, {3}), (True, {3}), (False, {1})):
        result = kp.export_tflite(
            model, path, "int8", x, engine=engine, per_channel=per_channel, validation_data=(x, y)
        )
        assert scales(path)["FULLY_CONNECTED"] == expected
        assert scales(path)["CONV_2D"] == {8}
        assert result.value("agreement") >= 0.95


def test_biases_are_corrected_for_the_weights_that_the_file_has(keras, rng, tmp_path):
    """Small weights beside large ones lose most in one scale; their mean error is taken out of the bias."""
    model = keras.Sequential([keras.Input((32,)), keras.layers.Dense(4, name="dense")])
    kernel = rng.normal(size=(32, 4)).astype("float32") * np.array([1.0, 1.0, 0.02, 0.02], "float32")
    model.layers[0].set_weights([kernel, np.zeros(4, "float32")])
    x = rng.normal(size=(128, 32)).astype("float32") + 1
    path, errors = tmp_path / "model.tflite", {}
    for corrected in (True, False):
        kp.export_tflite(model, path, "int8", x, per_channel=False, bias_correction=corrected, io="float32")
        errors[corrected] = np.abs((kp.edge.predict(path, x) - model.predict(x, verbose=0)).mean(0)).max()
    assert errors[True] < 0.6 * errors[False]


def test_micro_gets_what_takes_less_memory(keras, rng, tmp_path):
    """The note has the arenas of both, which check_micro confirms; a request is obeyed, whatever it costs."""
    pytest.importorskip("tflite_micro")
    layers = [keras.Input((32,))] + [keras.layers.Dense(64, activation="relu", name=f"dense_{n}x") for n in range(6)]
    model, x = keras.Sequential(layers), rng.normal(size=(32, 32)).astype("float32")
    arenas = {}
    for per_channel in (None, True):
        path = tmp_path / f"{per_channel}.tflite"
        result = kp.export_tflite(model, path, "int8", x, runtime="tflm", per_channel=per_channel)
        arenas[per_channel] = kp.check_micro(path).value("arena_bytes")
        notes = [note for note in result.notes if "dense layers have" in note]
        if per_channel is None:
            (note,) = notes
    assert arenas[None] < 0.7 * arenas[True]
    numbers = [int(word.replace(",", "")) for word in note.split() if word[0].isdigit()]
    assert numbers == pytest.approx([arenas[None], arenas[True]], rel=0.02)


def test_without_tflite_micro_a_note_says_so(keras, rng, tmp_path, monkeypatch):
    """What was not measured is not chosen."""
    from keras_precision.export import tflite

    monkeypatch.setattr(tflite, "available", lambda package: package != "tflite_micro")
    x, _ = nets.classes(rng)
    result = kp.export_tflite(nets.mlp(keras), tmp_path / "model.tflite", "int8", x, runtime="tflm")
    assert any("was not measured" in note for note in result.notes)
    assert scales(tmp_path / "model.tflite")["FULLY_CONNECTED"] == {16, 3}


def test_what_is_no_choice_is_refused(keras, rng, tmp_path):
    """Other values, and one scale for weights that were trained with several."""
    x, _ = nets.classes(rng)
    model = nets.mlp(keras)
    with pytest.raises(InputError, match="Expected per_channel to be True, False or None. Received: 'no'"):
        kp.export_tflite(model, tmp_path / "model.tflite", "int8", x, per_channel="no")
    with pytest.raises(InputError, match="trained with one scale for each output"):
        kp.export_tflite(
            kp.quantize_aware(model, "int8", representative_dataset=x), tmp_path / "m.tflite", per_channel=False
        )
    assert not list(tmp_path.iterdir())


def test_what_no_precision_has_is_not_answered_with_another(keras, rng, tmp_path):
    """TensorFlow Lite Micro has no GELU at all."""
    layers = [keras.Input((8,)), keras.layers.Dense(4, activation="gelu", name="hidden"), keras.layers.Dense(2)]
    x, _ = nets.classes(rng)
    with pytest.raises(
        PlanError, match=r"no kernel GELU \(layer 'hidden'\)\. Replace these layers: no precision has"
    ) as refused:
        kp.export_tflite(keras.Sequential(layers), tmp_path / "model.tflite", "int8", x, runtime="tflm")
    assert "another precision" not in str(refused.value)
