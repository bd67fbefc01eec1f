"""Files whose inputs and outputs do not all begin with the batch: nothing is cut, nothing shared between samples."""

import flatbuffers
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.lite.python import schema_py_generated as schema

import keras_precision as kp
from keras_precision import edge
from keras_precision.core.errors import DataError, ModelError
from keras_precision.runtimes.tflite.in_memory import predict_in_memory


def written(folder, function, *shapes):
    """Return a file of a function of arrays of these shapes, named ``a``, ``b`` and so on."""
    module, path = tf.Module(), folder / "model.tflite"
    module.call = tf.function(function)
    specs = [tf.TensorSpec(shape, tf.float32, name) for name, shape in zip("abc", shapes, strict=False)]
    tf.saved_model.save(module, str(folder), signatures=module.call.get_concrete_function(*specs))
    path.write_bytes(tf.lite.TFLiteConverter.from_saved_model(str(folder)).convert())
    return path


def changed(path, change):
    """Rewrite a file with its tables changed."""
    content = schema.ModelT.InitFromObj(schema.Model.GetRootAs(bytearray(path.read_bytes()), 0))
    change(content)
    builder = flatbuffers.Builder(1024)
    builder.Finish(content.Pack(builder), b"TFL3")
    path.write_bytes(builder.Output())
    return path


def rows(count, *shape):
    """Return numbers that are all different."""
    return np.arange(count * np.prod(shape), dtype="float32").reshape(count, *map(int, shape))


def test_outputs_of_one_sample_stay_whole(tmp_path):
    """Boxes, a scalar and a row for each sample come as many as the samples, each with its own numbers."""
    path = written(
        tmp_path,
        lambda x: {"boxes": tf.reshape(tf.tile(x, [1, 5]), [10, 4]), "sum": tf.reduce_sum(x), "row": 2 * x},
        [1, 8],
    )
    names = [tensor.name for tensor in edge.inspect(path).outputs]
    for count in (1, 2, 70):
        x = rows(count, 8)
        outputs = dict(zip(names, edge.predict(path, x, threads=2), strict=True))
        np.testing.assert_array_equal(outputs["boxes"], np.tile(x, 5).reshape(count, 10, 4))
        np.testing.assert_array_equal(outputs["sum"], x.sum(axis=1))
        np.testing.assert_array_equal(outputs["row"], 2 * x)
        in_memory = dict(zip(names, predict_in_memory(path.read_bytes(), {"a": x}, 2), strict=True))
        for name, array in outputs.items():
            np.testing.assert_array_equal(in_memory[name], array)


def test_evaluate_scores_boxes_by_sample(tmp_path):
    """The model function is compared with all its numbers."""
    path, x = written(tmp_path, lambda x: tf.reshape(tf.tile(x, [1, 5]), [10, 4]), [1, 8]), rows(3, 8)
    expected = np.tile(x, 5).reshape(3, 10, 4)
    result = kp.evaluate(path, x, expected, ["mse"], reference=expected)
    assert (result.value("mean_squared_error"), result.value("samples")) == (0, 3)
    assert edge.evaluate(path, x, expected, ["mae"]).value("mean_absolute_error") == 0


def test_inputs_of_different_leading_sizes(tmp_path):
    """An input whose first axis is not that of the others, or that is a scalar, is the whole of one sample's."""
    path = written(tmp_path, lambda a, b, c: c * (tf.reduce_sum(b, axis=0)[None] + a), [1, 4], [10, 4], [])
    a, b, c = rows(3, 4), rows(3, 10, 4), rows(3)
    samples = {"a": a, "b": b, "c": c}
    np.testing.assert_array_equal(edge.predict(path, samples), c[:, None] * (b.sum(axis=1) + a))
    assert edge.benchmark(path, samples, warmup=0, min_calls=1, min_seconds=0).value("latency_samples") == 1
    assert kp.benchmark(path, warmup=0, min_calls=1, min_seconds=0).value("latency_samples") == 1
    with pytest.raises(DataError, match=r"Expected samples of shape \(n, 10, 4\) for the input"):
        edge.predict(path, {name: array[0] if array is b else array for name, array in samples.items()})


def test_batches_that_a_file_fixes(tmp_path):
    """The last batch is filled with a valid sample, and an output without rows of the samples cannot be told apart."""
    path, x = written(tmp_path, lambda x: x / tf.reduce_sum(x, axis=1, keepdims=True), [4, 3]), 1 + rows(6, 3)
    np.testing.assert_allclose(edge.predict(path, x), x / x.sum(axis=1, keepdims=True), rtol=1e-6)
    path = written(tmp_path, lambda x: tf.reduce_sum(x, axis=0), [4, 3])
    with pytest.raises(DataError, match=r"one row per sample.*Received: \(3,\) for batches of 4"):
        edge.predict(path, x)


def test_outputs_without_names(tmp_path):
    """Without a signature and with no names, inputs and outputs are numbered."""

    def anonymous(content):
        content.signatureDefs = []
        for tensor in content.subgraphs[0].tensors:
            tensor.name = b""

    path = changed(written(tmp_path, lambda a: {"all": a + 1, "two": a[:, :2]}, [1, 4]), anonymous)
    model = edge.inspect(path)
    assert [tensor.name for tensor in (*model.inputs, *model.outputs)] == ["input_0", "output_0", "output_1"]
    first, second = sorted(edge.predict(path, {"input_0": rows(3, 4)}), key=lambda array: -array.size)
    np.testing.assert_array_equal(first, rows(3, 4) + 1)
    np.testing.assert_array_equal(second, rows(3, 4)[:, :2])


def test_a_file_without_outputs(tmp_path):
    """It can be read, and predicts nothing."""

    def silent(content):
        content.signatureDefs, content.subgraphs[0].outputs = [], []

    path = changed(written(tmp_path, lambda x: x + 1, [1, 4]), silent)
    assert edge.inspect(path).outputs == ()
    for call in (edge.predict, lambda path, x: kp.evaluate(path, x, metrics=[])):
        with pytest.raises(DataError, match="Expected a file with outputs. Received: one that has none"):
            call(path, rows(2, 4))


def test_the_signature_of_the_main_graph_names_it(tmp_path):
    """Of several signatures, the one whose graph runs gives the names."""
    module = tf.Module()
    spec = tf.TensorSpec([1, 4], tf.float32, "x")
    functions = {
        name: tf.function(lambda x, width=width: {f"out_{width}": x[:, :width] + 1}).get_concrete_function(spec)
        for name, width in (("second", 3), ("first", 2))
    }
    module.functions = functions
    tf.saved_model.save(module, str(tmp_path / "saved"), signatures=functions)
    path = tmp_path / "model.tflite"
    path.write_bytes(
        tf.lite.TFLiteConverter.from_saved_model(str(tmp_path / "saved"), signature_keys=["second", "first"]).convert()
    )
    (output,) = edge.inspect(path).outputs
    assert output.name == f"out_{output.shape[1]}"
    np.testing.assert_array_equal(edge.predict(path, rows(2, 4)), rows(2, 4)[:, : output.shape[1]] + 1)


def test_a_model_with_one_number_for_a_batch(stack, tmp_path):
    """Its file has one for each sample, which runs; what Keras computes of a batch cannot be scored by sample."""
    inputs = stack.keras.Input((6,))
    model = stack.keras.Model(inputs, stack.keras.ops.sum(stack.keras.layers.Dense(4)(inputs)))
    path, x = tmp_path / "sum.tflite", rows(8, 6)
    kp.export_tflite(model, path, "float32")
    with pytest.raises(ModelError, match="output 0 of .*one number for a whole batch"):
        kp.evaluate(path, x, reference=model)
    singles = np.stack([np.asarray(model(x[number : number + 1])) for number in range(len(x))])
    assert kp.evaluate(path, x, reference=singles).value("snr_db") > 60
