"""Operations of keras.ops that TFLiteConverter has no kernels for: rewritten for the file, or named."""

import threading

import nets
import numpy as np
import pytest

import keras_precision as kp
from keras_precision._adapters import adapter_of
from keras_precision.core.errors import ExportError


@pytest.fixture
def ops(stack):
    """The operations of Keras 3; tf_keras has none."""
    if not hasattr(stack.keras, "ops"):
        pytest.skip("tf_keras has no keras.ops")
    return stack.keras.ops


def _segmentation(keras, head):
    keras.utils.set_random_seed(0)
    image = keras.Input((6, 6, 3), name="image")
    return keras.Model(image, head(keras.layers.Conv2D(4, 3, name="conv")(image)))


@pytest.mark.every_stack
def test_a_head_of_argmax_is_exported(stack, ops, rng, tmp_path):
    """The file has TensorFlow Lite's own kernel, and the model's classes."""
    model = _segmentation(stack.keras, lambda features: ops.argmax(features, -1))
    x = rng.normal(size=(16, 6, 6, 3)).astype("float32")
    path = tmp_path / "model.tflite"
    kp.export_tflite(model, path, "int8", x)
    assert "ARG_MAX" in {name.split()[0] for name in kp.edge.inspect(path).operator_counts}
    assert (kp.edge.predict(path, x) == model.predict(x, verbose=0)).mean() > 0.9


@pytest.mark.parametrize(("precision", "io"), [("int16x8", None), ("int8", "float32")])
def test_argmax_in_other_precisions(stack, ops, rng, tmp_path, precision, io):
    """Wide activations and float inputs have the kernel, too; argmin keeps the axis that it is asked to keep."""
    model = _segmentation(stack.keras, lambda features: ops.argmin(features, 1, keepdims=True))
    x = rng.normal(size=(16, 6, 6, 3)).astype("float32")
    kp.export_tflite(model, tmp_path / "model.tflite", precision, x, **({"io": io} if io else {}))
    classes = kp.edge.predict(tmp_path / "model.tflite", x)
    assert classes.shape == (16, 1, 4, 4)
    assert (classes == model.predict(x, verbose=0)).mean() > 0.9


def test_functions_with_kernels_by_other_names(stack, ops, rng, tmp_path):
    """Tangent and the inverse functions are computed from SIN, COS and ATAN2, within float32's rounding."""
    keras = stack.keras
    features = keras.Input((5,), name="features")
    small = ops.tanh(features)
    functions = (ops.tan, ops.arctan, ops.arcsin, ops.arccos)
    outputs = [*(function(small) for function in functions), ops.argmin(features, keepdims=True)]
    model = keras.Model(features, outputs)
    x = rng.normal(size=(4, 5)).astype("float32")
    kp.export_tflite(model, tmp_path / "model.tflite", "float32")
    for row in range(len(x)):  # without an axis, the position is that in the whole batch, which is one sample in a file
        for received, expected in zip(
            kp.edge.predict(tmp_path / "model.tflite", x[row : row + 1]),
            model.predict_on_batch(x[row : row + 1]),
            strict=True,
        ):
            np.testing.assert_allclose(np.reshape(received, np.shape(expected)), expected, atol=1e-6)


def test_keras_itself_is_unchanged(stack, ops):
    """Within the block other threads, and afterwards all, have Keras's own functions, which order -0.0 before 0.0."""
    zeros, heard = np.array([-0.0, 0.0], "float32"), []
    with adapter_of(nets.mlp(stack.keras)).convertible_operations():
        here = int(ops.argmax(zeros))
        thread = threading.Thread(target=lambda: heard.append(int(ops.argmax(zeros))))
        thread.start()
        thread.join()
    assert (here, heard, int(ops.argmax(zeros))) == (0, [1], 1)


def test_operations_without_a_kernel_are_named(stack, ops, tmp_path):
    """The message has the function of Keras, and its layer where it is in one."""
    keras = stack.keras

    class Inverse(keras.layers.Layer):
        def call(self, inputs):
            return ops.erfinv(ops.tanh(inputs))

    features = keras.Input((5,), name="features")
    model = keras.Model(features, ops.signbit(Inverse(name="inverse")(features)))
    with pytest.raises(ExportError) as caught:
        kp.export_tflite(model, tmp_path / "model.tflite", "float32")
    assert "Erfinv of keras.ops.erfinv of layer 'inverse'" in str(caught.value)
    assert "BitwiseAnd of keras.ops.signbit outside the layers" in str(caught.value)
    assert not list(tmp_path.iterdir())
