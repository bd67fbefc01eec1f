"""lint: what a graph shows is reported on every stack, in the right layer and line; healthy twins give nothing of the kind."""

import faulty
import numpy as np
import pytest

import keras_precision as kp
from keras_precision.core.errors import ModelError

pytestmark = pytest.mark.every_stack


class Ops:
    """The functions that the layers below need, under one set of names."""

    def __init__(self, keras):
        ops = faulty.operations(keras)
        legacy = not hasattr(keras, "ops")
        self.exp, self.sqrt, self.square, self.cast = ops.exp, ops.sqrt, ops.square, ops.cast
        self.sum, self.max, self.mean = (
            (ops.reduce_sum, ops.reduce_max, ops.reduce_mean) if legacy else (ops.sum, ops.max, ops.mean)
        )
        self.log, self.softmax = (ops.math.log, ops.nn.softmax) if legacy else (ops.log, ops.softmax)
        self.log_softmax = ops.nn.log_softmax if legacy else ops.log_softmax


def by_hand(ops, x):
    """A softmax that overflows."""
    top = ops.exp(x)
    return top / ops.sum(top, axis=-1, keepdims=True)


def shifted(ops, x):
    """One that does not."""
    top = ops.exp(x - ops.max(x, axis=-1, keepdims=True))
    return top / ops.sum(top, axis=-1, keepdims=True)


def by_squares(ops, x):
    """A variance whose digits cancel."""
    return ops.mean(ops.square(x), axis=-1, keepdims=True) - ops.square(ops.mean(x, axis=-1, keepdims=True))


def by_differences(ops, x):
    """One whose digits do not."""
    return ops.mean(ops.square(x - ops.mean(x, axis=-1, keepdims=True)), axis=-1, keepdims=True)


PLANTED = {
    "exp": ("unshifted-exp", by_hand, shifted),
    "scaled exp": ("unshifted-exp", lambda ops, x: by_hand(ops, 6 * x), lambda ops, x: shifted(ops, 6 * x)),
    "mask": (
        "infinite-constant",
        lambda ops, x: x + ops.cast(ops.cast(x > 0, "float32") * -1e9, x.dtype),
        lambda ops, x: x + ops.cast(ops.cast(x > 0, "float32") * -3e4, x.dtype),
    ),
    "log": ("log-of-softmax", lambda ops, x: ops.log(ops.softmax(x)), lambda ops, x: ops.log_softmax(x)),
    "variance": ("half-variance", by_squares, by_differences),
    "epsilon": (
        "zero-epsilon",
        lambda ops, x: x / (ops.sqrt(x * x) + 1e-9),
        lambda ops, x: x / (ops.sqrt(x * x) + 1e-3),
    ),
    "constant": (
        "infinite-constant",
        lambda ops, x: x + ops.cast(x > 0, x.dtype) * -1e9,
        lambda ops, x: x + ops.cast(x > 0, x.dtype) * -3e4,
    ),
}


@pytest.mark.parametrize(("code", "wrong", "right"), PLANTED.values(), ids=PLANTED)
def test_what_the_graph_shows(stack, code, wrong, right):
    """The fault is reported in its layer and line, in float16 as more than info; the twin without it is not."""
    ops = Ops(stack.keras)

    def findings_of(function, policy):
        class Planted(stack.keras.layers.Layer):
            def call(self, inputs):
                return function(ops, inputs)

        with kp.precision(policy), np.errstate(over="ignore"):
            return [
                finding
                for finding in kp.lint(faulty.net(stack.keras, Planted(name="planted")))
                if finding.subject == "planted"
            ]

    (half,) = [finding for finding in findings_of(wrong, "mixed_float16") if finding.code == code]
    assert half.severity in ("error", "warning")
    assert "(test_lint.py:" in half.message
    assert all(finding.severity == "info" for finding in findings_of(wrong, "float32"))
    assert not [finding for finding in findings_of(right, "mixed_float16") if finding.code == code]


def test_long_sums_in_half_precision(stack):
    """A long sum that stays in 16 bits is reported where the framework adds up in them, and no short one."""
    ops = Ops(stack.keras)

    class Total(stack.keras.layers.Layer):
        def call(self, inputs):
            return ops.sum(inputs, axis=-1, keepdims=True)

    with kp.precision("mixed_float16"):
        long, short = (faulty.net(stack.keras, Total(name="total"), width=width) for width in (512, 8))
    narrow = stack.name in ("tensorflow", "tf_keras")
    assert ("half-reduction" in {finding.code for finding in kp.lint(long)}) == narrow
    assert "half-reduction" not in {finding.code for finding in kp.lint(short)}


@pytest.mark.parametrize(("size", "is_long"), [(64, True), (4, False)])
def test_reductions_other_than_sums(size, is_long, stack):
    """Average pooling adds up in 16 bits on TensorFlow and JAX, a cumulative sum on TensorFlow; products of matrices nowhere."""
    layers = stack.keras.layers
    cumulate = getattr(stack.keras, "ops", None) or __import__("tensorflow")

    class Cumulate(layers.Layer):
        def call(self, inputs):
            return cumulate.cumsum(inputs, axis=1)

        def compute_output_shape(self, shape):
            return shape

    with kp.precision("mixed_float16"):
        image = layers.Input((size, size, 2))
        pooled = layers.AveragePooling2D(size, name="pool")(image)
        sums = Cumulate(name="cumulate")(layers.Reshape((size * size, 2))(image))
        joined = layers.Concatenate()([layers.Flatten()(pooled), layers.Flatten()(sums)])
        model = stack.keras.Model(image, layers.Dense(1, dtype="float32", name="head")(layers.Dense(4)(joined)))
    found = {finding.subject for finding in kp.lint(model) if finding.code == "half-reduction"}
    narrow = {"torch": set(), "jax": {"pool"}}.get(stack.name, {"pool", "cumulate"})
    assert found == (narrow if is_long else set())


def test_a_healthy_model_is_left_alone(stack):
    """Keras's own layers, in mixed float16 with a float32 head, give no finding but info; nothing is changed."""
    layers = stack.keras.layers
    with kp.precision("mixed_float16"):
        model = faulty.net(
            stack.keras, layers.LayerNormalization(name="norm"), layers.Dropout(0.5), layers.Dense(8, activation="gelu")
        )
    before = model.get_weights()
    assert {finding.severity for finding in kp.lint(model)} <= {"info"}
    assert all((one == other).all() for one, other in zip(before, model.get_weights(), strict=True))


def test_models_that_cannot_be_traced(stack):
    """A model without a known input is refused before anything runs."""
    with pytest.raises(ModelError, match="Expected a built model"):
        kp.lint(stack.keras.Sequential([stack.keras.layers.Dense(2)]))
