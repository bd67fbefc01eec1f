"""Files with inputs and outputs in uint8, as cameras and older devices have them."""

import nets
import numpy as np
import pytest

import keras_precision as kp
from keras_precision.core.errors import ExportError, PlanError


@pytest.fixture(scope="module")
def keras(stack):
    """Keras, where it exports in this process."""
    if stack.name != "tensorflow":
        pytest.skip("files are the same on every stack")
    return stack.keras


def outputs(path, integers):
    """The integers that LiteRT computes, and those of its input and output that stand for zero."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path))
    interpreter.allocate_tensors()
    (source,), (target,) = interpreter.get_input_details(), interpreter.get_output_details()
    received = []
    for sample in integers.astype(source["dtype"]):
        interpreter.set_tensor(source["index"], sample[np.newaxis])
        interpreter.invoke()
        received.append(interpreter.get_tensor(target["index"])[0])
    return np.array(received), (source, target)


@pytest.mark.parametrize("engine", ["aeq", "converter"])
def test_bytes_are_the_integers_plus_128(keras, rng, tmp_path, engine):
    """Of both engines, with the same scales, and the result says what the file has."""
    keras.utils.set_random_seed(1)
    model, (x, y) = nets.conv(keras), nets.images(rng)
    signed, unsigned = tmp_path / "int8.tflite", tmp_path / "uint8.tflite"
    kp.export_tflite(model, signed, "int8", x, engine=engine)
    result = kp.export_tflite(model, unsigned, "int8", x, engine=engine, io="uint8", validation_data=(x, y))
    assert result.plan.io == "uint8"
    assert result.value("agreement") >= 0.95
    integers = rng.integers(-128, 128, (16, 12, 12, 1))
    expected, before = outputs(signed, integers)
    received, after = outputs(unsigned, integers + 128)
    assert [detail["dtype"] for detail in after] == [np.uint8, np.uint8]
    for old, new in zip(before, after, strict=True):
        assert new["quantization"] == (pytest.approx(old["quantization"][0]), old["quantization"][1] + 128)
    np.testing.assert_array_equal(received.astype(int), expected.astype(int) + 128)
    assert np.abs(kp.edge.predict(unsigned, x) - model.predict(x, verbose=0)).max() < 0.05


def test_micro_runs_bytes(keras, rng, tmp_path):
    """TensorFlow Lite Micro computes the same outputs as LiteRT."""
    pytest.importorskip("tflite_micro")
    x, _ = nets.classes(rng)
    kp.export_tflite(nets.mlp(keras), tmp_path / "bytes.tflite", "int8", x, io="uint8", runtime="tflm")
    checked = kp.check_micro(tmp_path / "bytes.tflite")
    assert checked.value("runs") == 1
    assert checked.value("max_difference") < 0.01


def test_ends_in_float_have_no_bytes(keras, rng, tmp_path):
    """An input or output that an operator computes in float is named, and nothing is written; other formats have none."""
    x, _ = nets.classes(rng)
    model = nets.mlp(keras)
    for layer, end in (("hidden", "inputs"), ("head", "outputs")):
        plan = kp.PrecisionPlan.deployment("int8", layers={layer: "float32"}, io="uint8")
        with pytest.raises(ExportError, match=f"Expected {end} that the file computes with in int8"):
            kp.export_tflite(model, tmp_path / "bytes.tflite", plan, x)
    with pytest.raises(PlanError, match=r"only \.tflite files have. Received: it for onnx"):
        kp.export_onnx(model, tmp_path / "bytes.onnx", kp.PrecisionPlan.deployment("int8", io="uint8"), x)
    assert not list(tmp_path.iterdir())
