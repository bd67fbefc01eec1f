"""Samples reach every input by name: models and files have their inputs in different orders."""

import numpy as np
import pytest

import keras_precision as kp
from keras_precision.core.errors import DataError
from keras_precision.core.model_inputs import Input, in_order, input_order

pytestmark = pytest.mark.every_stack

NAMES = ("x1", "x2")


def converted(folder, names, widths, outputs):
    """Return a file of TFLiteConverter, with inputs of these names, for a function of NumPy arrays."""
    import tensorflow as tf

    module = tf.Module()
    module.call = tf.function(lambda **inputs: outputs(tf, *(inputs[name] for name in names)))
    specs = {name: tf.TensorSpec((1, width), tf.float32, name) for name, width in zip(names, widths, strict=True)}
    tf.saved_model.save(module, str(folder), signatures=module.call.get_concrete_function(**specs))
    path = folder / "foreign.tflite"
    path.write_bytes(tf.lite.TFLiteConverter.from_saved_model(str(folder)).convert())
    return path


def two_inputs(keras, folder, names=NAMES, file_names=NAMES, widths=(4, 4)):
    """Return a model of two inputs, a file of the same function that another program wrote, samples and labels."""
    first, second = (keras.layers.Input((width,), name=name) for width, name in zip(widths, names, strict=True))
    model = keras.Model([first, second], keras.layers.Dense(3)(keras.layers.Concatenate()([first, second])))
    kernel, bias = model.get_weights()
    rng = np.random.default_rng(1)
    x = [rng.normal(size=(24, width)).astype("float32") for width in widths]
    labels = (np.concatenate(x, axis=1) @ kernel + bias).argmax(axis=-1)
    path = converted(folder, file_names, widths, lambda tf, *parts: tf.concat(parts, 1) @ kernel + bias)
    return model, path, x, labels


@pytest.fixture(scope="module")
def twins(stack, tmp_path_factory):
    """A model and a file whose inputs have the same shapes and names, in another order."""
    model, path, x, labels = two_inputs(stack.keras, tmp_path_factory.mktemp("twins"))
    assert [tensor.name for tensor in kp.edge.inspect(path).inputs] == [*reversed(NAMES)]
    return model, path, x, labels


def in_form(form, x, labels):
    """Two inputs with labels in a form that fit takes: samples, and labels where these do not come with them."""
    import keras
    import tensorflow as tf

    if form in ("list", "tuple", "dict"):
        return {"list": list(x), "tuple": tuple(x), "dict": dict(zip(NAMES, x, strict=True))}[form], labels
    if form.startswith("tf.data"):
        samples = dict(zip(reversed(NAMES), reversed(x), strict=True)) if form == "tf.data of dicts" else tuple(x)
        return tf.data.Dataset.from_tensor_slices((samples, labels)).batch(10), None
    parts = [([array[start : start + 10] for array in x], labels[start : start + 10]) for start in (0, 10, 20)]
    if form == "generator":
        return iter(parts), None
    if form == "DataLoader":
        torch = pytest.importorskip("torch")
        rows = [((x[0][number], x[1][number]), labels[number]) for number in range(len(labels))]
        return torch.utils.data.DataLoader(rows, batch_size=10), None

    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return len(parts)

        def __getitem__(self, index):
            return parts[index]

    return Batches(), None


FORMS = ["list", "tuple", "dict", "tf.data", "tf.data of dicts", "PyDataset", "DataLoader", "generator"]


@pytest.mark.parametrize("form", FORMS)
def test_model_and_file_get_the_same_samples(twins, form):
    """Whichever of them is the reference, and however the samples come, both predict for the same ones."""
    model, path, x, labels = twins
    for target, reference in ((path, model), (model, path)):
        samples, y = in_form(form, x, labels)
        result = kp.evaluate(target, samples, y, reference=reference)
        assert (result.value("accuracy"), result.value("agreement")) == (1.0, 1.0)
        assert result.value("snr_db") > 80


def test_a_file_alone_gets_them_by_name(twins):
    """Equal shapes in the arbitrary order of another program's file do not tell which is which; names do."""
    _, path, x, labels = twins
    named = dict(zip(NAMES, x, strict=True))
    assert kp.evaluate(path, named, labels).value("accuracy") == 1.0
    assert kp.edge.evaluate(path, named, labels).value("accuracy") == 1.0
    spelled = {f"serving_default_{name.upper()}:0": array for name, array in named.items()}
    np.testing.assert_array_equal(kp.edge.predict(path, spelled), kp.edge.predict(path, named))
    with pytest.raises(DataError, match=r"Expected as many samples for each input. Received: \[3, 24\]"):
        kp.edge.predict(path, {"x1": x[0], "x2": x[1][:3]})
    for call in (kp.evaluate, kp.edge.evaluate):
        with pytest.raises(DataError, match="Expected a dict by name.*shapes do not tell them apart: 'x2', 'x1'"):
            call(path, x, labels)


def test_names_of_the_file_are_understood_too(stack, tmp_path):
    """A dict may have the file's names where the model's are spelled otherwise."""
    names = ("Left_part", "right-part") if stack.name == "tf_keras" else ("Left part", "right-part")
    model, path, x, labels = two_inputs(stack.keras, tmp_path, names, ("left_part", "right_part"))
    for keys in (names, ("left_part", "right_part")):
        result = kp.evaluate(path, dict(zip(keys, x, strict=True)), labels, reference=model)
        assert (result.value("accuracy"), result.value("agreement")) == (1.0, 1.0)


def test_shapes_decide_where_names_do_not(stack, tmp_path):
    """Without common names, inputs of different shapes find each other, and those of equal shapes are refused."""
    model, path, x, labels = two_inputs(stack.keras, tmp_path, file_names=("p", "q"), widths=(4, 3))
    for samples in (x, dict(zip(NAMES, x, strict=True)), {"p": x[0], "q": x[1]}):
        assert kp.evaluate(path, samples, labels, reference=model).value("agreement") == 1.0
    for samples in (x, x[::-1]):
        assert kp.edge.evaluate(path, samples, labels).value("accuracy") == 1.0
    model, path, x, labels = two_inputs(stack.keras, tmp_path, file_names=("p", "q"))
    with pytest.raises(DataError, match="Expected inputs of the same names.*'x1', 'x2'. Received: '[pq]', '[pq]'"):
        kp.evaluate(path, x, labels, reference=model)


def test_files_of_every_format_have_the_order_of_the_model(stack, tmp_path):
    """A list goes to a file of this package as to its model, in whatever format it is."""
    for module in ("onnxruntime", "tf2onnx", "openvino"):
        pytest.importorskip(module, reason='pip install "keras-precision[openvino]"')
    (tmp_path / "foreign").mkdir()
    for names in (NAMES, ("z", "a")):
        model, _, x, labels = two_inputs(stack.keras, tmp_path / "foreign", names)
        for export, suffix in ((kp.export_tflite, "tflite"), (kp.export_onnx, "onnx"), (kp.export_openvino, "xml")):
            path = tmp_path / f"{names[0]}.{suffix}"
            result = export(model, path, "float32", validation_data=(x, labels))
            assert result.value("agreement") == 1.0
            assert kp.evaluate(path, x, labels).value("accuracy") == 1.0
            assert kp.evaluate(path, dict(zip(names, x, strict=True)), labels).value("accuracy") == 1.0


def test_integers_and_single_assignments_tell_inputs_apart():
    """Among arrays of one shape, whole numbers go to the input that takes them; what is forced is taken."""
    inputs = [Input("a", (3,), "float32", ordered=False), Input("b", (3,), "int32", ordered=False)]
    whole, real = np.ones((2, 3), "int64"), np.ones((2, 3)) / 2
    assert in_order([whole, real], inputs)[1] is whole
    assert in_order([real, whole], inputs)[1] is whole
    with pytest.raises(DataError, match="shapes do not tell them apart: 'a', 'b'"):
        in_order([whole, whole], inputs)
    assert input_order([Input("q", (3,), "int64"), Input("p", (3,), "float32")], inputs) == [1, 0]
    assert input_order(
        [Input("p", (3,), "float32"), Input("q", (3,), "float32")],
        [Input("r", (3,), "float32"), Input("s", (3,), "float32")],
    ) == [0, 1]
