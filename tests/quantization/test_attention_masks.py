"""Attention with masks of -1e9 and beyond: files in integers that are as good as without a mask."""

import numpy as np
import pytest

import keras_precision as kp
from keras_precision.export.plan_compiler import PlanCompiler

LITERT = pytest.importorskip("ai_edge_litert.interpreter", reason='pip install "keras-precision[tflite]"')


def outputs_of(path, samples):
    """The outputs of a file in the order of the model, by LiteRT alone; ``samples`` is by name of input."""
    runner = LITERT.Interpreter(str(path)).get_signature_runner()
    count = len(next(iter(samples.values())))
    rows = [runner(**{name: values[n : n + 1] for name, values in samples.items()}) for n in range(count)]
    return [np.concatenate([row[f"output_{number}"] for row in rows]) for number in range(len(rows[0]))]


def snr_db(expected, got):
    """Signal to noise in dB, the signal being what varies from sample to sample."""
    return 10 * np.log10(np.square(expected - expected.mean(0)).sum() / np.square(got - expected).sum())


def masked(keras, *, with_scores=False):
    """A model with an output for every way to mask attention: by layers, by booleans, and by a sum."""
    keras.utils.set_random_seed(2)
    layers = keras.layers
    sequence = layers.Input((8, 16), name="sequence")
    present = layers.Input((8,), name="present")  # 1 for steps that are there, 0 for padding
    allowed = layers.Input((8, 8), dtype="bool", name="allowed")

    def scores():
        return layers.Dot((2, 2))([layers.Dense(8)(sequence), layers.Dense(8)(sequence)])

    def attend(weights):
        return layers.Dot((2, 1))([weights, layers.Dense(8)(sequence)])

    far = layers.Reshape((1, 8))(layers.Rescaling(1e9, offset=-1e9)(present))
    added = layers.Add(name="added")([scores(), far])
    attended = [
        layers.MultiHeadAttention(2, 8, name="causal")(sequence, sequence, use_causal_mask=True),
        layers.MultiHeadAttention(2, 8, name="boolean")(sequence, sequence, attention_mask=allowed),
        attend(layers.Softmax(name="softmax_layer")(scores(), mask=allowed)),
        attend(layers.Softmax(name="additive")(added)),
    ]
    outputs = [layers.Dense(4)(layers.GlobalAveragePooling1D()(values)) for values in attended]
    return keras.Model([sequence, present, allowed], [*outputs, added] if with_scores else outputs)


@pytest.fixture(scope="module")
def samples():
    """Sequences of 3 to 8 steps; whole rows are masked where the step itself is padding."""
    random = np.random.default_rng(0)
    present = np.arange(8) < random.integers(3, 9, (96, 1))
    return {
        "sequence": random.normal(size=(96, 8, 16)).astype("float32"),
        "present": present.astype("float32"),
        "allowed": present[:, None] & present[:, :, None],
    }


@pytest.fixture(scope="module")
def attention(stack, samples):
    """The model, its outputs, and the calibration on the samples."""
    model = masked(stack.keras)
    expected = [np.asarray(output) for output in model.predict([*samples.values()], verbose=0)]
    return model, expected, kp.calibrate(model, samples)


@pytest.mark.every_stack
def test_masks_take_no_steps_from_scores(attention, samples, tmp_path):
    """Above 25 dB in int8, and better in int16x8, as it must be with its finer activations; a note names the layers."""
    model, expected, calibration = attention
    snr = {}
    for precision in ("int8", "int16x8"):
        result = kp.export_tflite(model, tmp_path / "model.tflite", precision, calibration, io="float32")
        (note,) = (text for text in result.notes if "mask" in text)
        assert all(f"layer '{name}'" in note for name in ("causal", "boolean", "softmax_layer"))
        got = outputs_of(tmp_path / "model.tflite", samples)
        snr[precision] = [snr_db(*pair) for pair in zip(expected, got, strict=True)]
    assert min(snr["int8"]) > 25, snr
    assert all(fine > coarse for coarse, fine in zip(snr["int8"], snr["int16x8"], strict=True)), snr


@pytest.mark.parametrize("precision", ["float32", "float16", "int8_dynamic"])
def test_a_softmax_in_float_keeps_its_mask(attention, precision):
    """Its float numbers reach as far as the mask does."""
    *_, calibration = attention
    plan = kp.PrecisionPlan.deployment(precision)
    assert (
        PlanCompiler(calibration, "minmax", bias_correction=False).job(plan).content == calibration.float_file.content
    )


def test_scores_that_are_an_output_are_not_clamped(stack, samples):
    """Where masked values go anywhere but into a softmax, -1e9 is what the caller expects."""
    calibration = kp.calibrate(masked(stack.keras, with_scores=True), samples)
    job = PlanCompiler(calibration, "minmax", bias_correction=False).job(kp.PrecisionPlan.deployment("int8"))
    assert (job.content, job.notes) == (calibration.float_file.content, ())
