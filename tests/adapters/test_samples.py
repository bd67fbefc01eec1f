"""Representative data in every form that fit takes."""

import numpy as np
import pytest
import tensorflow as tf

from keras_precision._adapters.data.samples import read_samples
from keras_precision.core.errors import DataError
from keras_precision.core.model_inputs import Input

ONE = (Input("x", (3,), "float32"),)
TWO = (Input("z", (3,), "float32"), Input("a", (2,), "int32"))
X = np.arange(12).reshape(4, 3).astype("float64") / 7
A = np.arange(8).reshape(4, 2)
Y = np.ones(4)


def py_dataset(elements):
    """A Keras PyDataset over a list of elements."""
    import keras

    class Data(keras.utils.PyDataset):
        def __len__(self):
            return len(elements)

        def __getitem__(self, index):
            return elements[index]

    return Data()


def torch_loader(*arrays):
    """A torch DataLoader over arrays, in batches of 3."""
    torch = pytest.importorskip("torch")
    tensors = torch.utils.data.TensorDataset(*map(torch.as_tensor, arrays))
    return torch.utils.data.DataLoader(tensors, batch_size=3)


ONE_INPUT = {
    "array": lambda: X,
    "integers": lambda: X,
    "list of one": lambda: [X],
    "tuple of one": lambda: (X,),
    "dict": lambda: {"x": X},
    "tensor": lambda: tf.constant(X),
    "batched dataset": lambda: tf.data.Dataset.from_tensor_slices(X).batch(3),
    "dataset of samples": lambda: tf.data.Dataset.from_tensor_slices(X),
    "labelled dataset": lambda: tf.data.Dataset.from_tensor_slices((X, Y)).batch(2),
    "weighted dataset": lambda: tf.data.Dataset.from_tensor_slices((X, Y, Y)).batch(2),
    "dataset of dicts": lambda: tf.data.Dataset.from_tensor_slices(({"x": X}, Y)).batch(2),
    "PyDataset": lambda: py_dataset([(X[:3], Y[:3]), (X[3:], Y[3:])]),
    "DataLoader": lambda: torch_loader(X, Y),
    "generator": lambda: ((X[index : index + 1], Y[index : index + 1]) for index in range(4)),
    "function of lists": lambda: lambda: ([X[index : index + 1]] for index in range(4)),
    "function of arrays": lambda: lambda: iter(X),
    "iterator": lambda: iter([X[:1], X[1:]]),
}


@pytest.mark.parametrize("make", ONE_INPUT.values(), ids=ONE_INPUT)
def test_one_input_in_every_form(make):
    """Whatever the form, the samples are the same, in the input's type and without labels."""
    samples = read_samples(make(), ONE)
    assert list(samples) == ["x"]
    assert samples["x"].dtype == np.float32
    np.testing.assert_array_equal(samples["x"], X.astype("float32"))


TWO_INPUTS = {
    "tuple": lambda: (X, A),
    "list": lambda: [X, A],
    "dict in another order": lambda: {"a": A, "z": X},
    "dataset of tuples of inputs": lambda: tf.data.Dataset.from_tensor_slices(((X, A), Y)).batch(3),
    "dataset of dicts": lambda: tf.data.Dataset.from_tensor_slices({"a": A, "z": X}).batch(3),
    "dataset without labels": lambda: tf.data.Dataset.from_tensor_slices((X, A)).batch(3),
    "PyDataset": lambda: py_dataset([({"a": A, "z": X}, Y)]),
    "function of lists": lambda: lambda: ([X[index : index + 1], A[index : index + 1]] for index in range(4)),
}


@pytest.mark.parametrize("make", TWO_INPUTS.values(), ids=TWO_INPUTS)
def test_two_inputs_in_every_form(make):
    """Inputs keep the model's order and their own types."""
    samples = read_samples(make(), TWO)
    assert [(name, array.dtype.name) for name, array in samples.items()] == [("z", "float32"), ("a", "int32")]
    np.testing.assert_array_equal(samples["z"], X.astype("float32"))
    np.testing.assert_array_equal(samples["a"], A)


BAD = {
    "text": ("data.npz", ONE, "Received: str. Load the data first"),
    "number": (3, ONE, "Received: int"),
    "too many": ([X, X], ONE, r"Received: a list of 2. For many samples of one input, stack them"),
    "one for two": (X, TWO, r"Expected 2 arrays, for 'z', 'a'. Received: one array"),
    "wrong names": ({"b": X}, ONE, r"Expected a dict with the keys \['x'\]. Received: \['b'\]"),
    "counts differ": (
        (X, A[:2]),
        TWO,
        r"Expected the same number of samples for every input. Received: {'z': 4, 'a': 2}",
    ),
    "wrong width": (X[:, :2], ONE, r"Expected samples of shape \(n, 3\) for the input 'x'. Received: \(4, 2\)"),
    "single sample": (X[0], ONE, r"Expected samples of shape \(n, 3\) for the input 'x'. Received: \(3,\)"),
    "floats for integers": (
        (X, A + 0.5),
        TWO,
        r"Expected whole numbers \(dtype int32\) for the input 'a'. Received: dtype float64",
    ),
    "objects": (X.astype(object), ONE, "Received: dtype object"),
    "infinite value": (np.where(X > 1, np.inf, X), ONE, "Received: 4 values of 12 that are NaN or infinite"),
    "overflow of the type": (X * 1e300, ONE, "that are NaN or infinite"),
    "endless dataset": (
        tf.data.Dataset.from_tensors(X).repeat(),
        ONE,
        r"Expected representative data that end.*dataset.take",
    ),
    "ragged": (lambda: iter([[[[1.0, 2.0, 3.0], [4.0]]]]), ONE, "Received: a ragged list. Pad or crop them"),
    "nothing": (lambda: iter(()), ONE, "Expected at least one sample"),
    "list too short": (lambda: iter([[X]]), TWO, r"Expected 2 array\(s\), for 'z', 'a'. Received: a list of 1"),
}


@pytest.mark.parametrize(("data", "inputs", "message"), BAD.values(), ids=BAD)
@pytest.mark.filterwarnings("ignore:overflow encountered in cast:RuntimeWarning")
def test_bad_samples_are_refused(data, inputs, message):
    """What does not fit the model is refused with what was expected and what was received."""
    with pytest.raises(DataError, match=message):
        read_samples(data, inputs)


def test_endless_py_dataset_is_refused():
    """A PyDataset without a length would never end."""
    import keras

    class Endless(keras.utils.PyDataset):
        @property
        def num_batches(self):
            return None

        def __getitem__(self, index):
            return X

    with pytest.raises(DataError, match="Received: an infinite dataset"):
        read_samples(Endless(), ONE)
