"""The plain profiler says why a run broke, and its advice, applied, mends the run."""

import faulty
import numpy as np
import pytest

import keras_precision as kp
from keras_precision._adapters import adapter_of
from keras_precision.core.errors import InputError, ModelError


def data(rng, scale=1.0):
    """Inputs and labels of 160 samples."""
    return (rng.normal(size=(160, 8)) * scale).astype("float32"), rng.normal(size=(160, 1)).astype("float32")


def build(stack, policy="float32", *middle, rate=0.01, loss="mse", optimizer=None, **head):
    """A small net, compiled with a metric."""
    keras = stack.keras
    keras.utils.set_random_seed(0)
    before = keras.mixed_precision.global_policy() if stack.name == "tf_keras" else keras.config.dtype_policy()
    set_policy = keras.mixed_precision.set_global_policy if stack.name == "tf_keras" else keras.config.set_dtype_policy
    set_policy(policy)
    layers = keras.layers
    last = layers.Dense(1, name="head", dtype="float32", **head)
    model = keras.Sequential([layers.Input((8,)), layers.Dense(8, name="first"), *(make() for make in middle), last])
    set_policy(before)
    model.compile(optimizer or keras.optimizers.SGD(rate), loss, metrics=["mae"])
    return model


def broken(model, x, y):
    """The first finding on a fit that breaks; examinations take the time that they need."""
    profiler = kp.PrecisionProfiler(verbose=0, examination_limit_s=600.0)
    model.fit(x, y, batch_size=16, epochs=4, shuffle=False, verbose=0, callbacks=[profiler])
    finding = profiler.findings[0]
    assert finding.severity == "error"
    return finding


def assert_cured(finding, model, x, y):
    """The advice gives a model, compiled as before, whose fit is healthy."""
    cured, x, y = finding.apply(model, x, y)
    adapter = adapter_of(model)
    assert type(adapter.unscaled(cured.optimizer)) is type(adapter.unscaled(model.optimizer))
    profiler = kp.PrecisionProfiler(verbose=0)
    history = cured.fit(x, y, batch_size=16, epochs=2, verbose=0, callbacks=[profiler]).history
    assert np.isfinite(history["loss"]).all()
    assert np.isfinite(history["mae"]).all()
    assert [other.code for other in profiler.findings if other.severity == "error"] == []


@pytest.mark.every_stack
@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_a_learning_rate_that_is_too_high(stack, rng, policy):
    """No precision and no layer is blamed: the same batches train with a part of the rate."""
    x, y = data(rng)
    model = build(stack, policy, rate=1e3)
    finding = broken(model, x, y)
    assert "of the learning rate the same batches train" in finding.message
    assert "float32" not in finding.advice
    assert_cured(finding, model, x, y)


@pytest.mark.every_stack
def test_a_logarithm_of_zero(stack, rng):
    """A loss that takes the logarithm of outputs that are 0 breaks in float32, too; clipped outputs cure it."""
    log, mean = (getattr(faulty.operations(stack.keras), name, None) for name in ("log", "mean"))
    if log is None:
        import tensorflow as tf

        log, mean = tf.math.log, tf.reduce_mean
    x, y = data(rng)
    model = build(stack, "mixed_float16", loss=lambda y, p: -mean(log(p)), activation="relu")
    finding = broken(model, x, y)
    assert "logarithm of 0" in finding.message
    assert "breaks in float32, too" in finding.message
    assert_cured(finding, model, x, y)


@pytest.mark.every_stack
def test_the_range_of_the_inputs(stack, rng):
    """Inputs that float16 cannot hold: a layer in float32 would train no better, standardized inputs do."""
    x, y = data(rng, 1e6)
    model = build(stack, "mixed_float16")
    finding = broken(model, x, y)
    assert "range of the data" in finding.message
    assert_cured(finding, model, x, y)


@pytest.mark.every_stack
@pytest.mark.parametrize(
    ("part", "policy"), [("inputs", "float32"), ("labels", "float32"), ("inputs", "mixed_float16")]
)
def test_data_that_are_not_finite(stack, rng, part, policy):
    """One sample of 160 has a NaN: found in the epoch after the one that it broke."""
    x, y = data(rng)
    (x if part == "inputs" else y)[70] = np.nan
    model = build(stack, policy)
    finding = broken(model, x, y)
    assert finding.subject == f"batch/{part}"
    assert_cured(finding, model, x, y)


def test_padding_alone(stack, rng):
    """A loss that divides by the number of labels that count, in a batch that has none."""
    from keras import ops

    def masked(y, p):
        mask = ops.cast(ops.not_equal(y, -1), p.dtype)
        return ops.sum(mask * ops.square(y - p)) / ops.sum(mask)

    x, y = data(rng)
    y[48:64] = -1
    finding = broken(build(stack, loss=masked), x, y)
    assert "all padding" in finding.message
    assert not finding.has_code
    with pytest.raises(InputError, match="Expected advice that is code"):
        finding.apply(None)


def test_a_schedule_that_divides_by_zero(stack, rng):
    """The learning rate is infinite in one step; the finding names it without a trial."""
    keras = stack.keras

    class Schedule(keras.optimizers.schedules.LearningRateSchedule):
        def __call__(self, step):
            return 0.1 / (keras.ops.cast(step, "float32") - 12.0) ** 2

        def get_config(self):
            return {}

    x, y = data(rng)
    model = build(stack, optimizer=keras.optimizers.SGD(Schedule()))
    finding = broken(model, x, y)
    assert finding.subject == "optimizer"
    assert "schedule of the learning rate is NaN or infinite" in finding.message
    assert_cured(finding, model, x, y)


def test_a_constraint_that_divides_by_zero(stack, rng):
    """Weights of 0, divided by their norm after the update."""
    keras = stack.keras

    class Norm(keras.constraints.Constraint):
        def __call__(self, weight):
            return weight / keras.ops.sqrt(keras.ops.sum(weight * weight, axis=0, keepdims=True))

    x, y = data(rng)
    model = build(
        stack,
        "float32",
        lambda: keras.layers.Dense(4, kernel_initializer="zeros", kernel_constraint=Norm()),
        kernel_initializer="zeros",
    )
    finding = broken(model, x, y)
    assert "constraints of the weights" in finding.message
    assert_cured(finding, model, x, y)


def test_an_epsilon_that_is_zero_in_float16(stack, rng):
    """Adam in plain float16: small gradients have squares of 0, and so has its epsilon."""
    keras = stack.keras
    x, y = data(rng)
    model = build(
        stack, "float16", lambda: keras.layers.Rescaling(1e-3), optimizer=keras.optimizers.Adam(1e-3, epsilon=1e-8)
    )
    finding = broken(model, x, y)
    assert "epsilon of the optimizer is 0 in float16" in finding.message
    assert_cured(finding, model, x, y)


def test_what_nothing_cures_is_said(stack, rng):
    """A layer whose gradient is infinite at 0 breaks with every rate and on standardized inputs; no plan is proposed."""
    x, y = np.zeros((160, 8), "float32"), data(rng)[1]
    model = build(stack, "mixed_float16", lambda: faulty.backward_boom(stack.keras, name="root"))
    finding = broken(model, x, y)
    assert "breaks in float32, too" in finding.message
    assert "Tried: 1e-05 of the learning rate" in finding.message
    assert "apply_plan" not in finding.advice


def test_a_model_that_is_not_compiled_is_not_compiled_again(stack):
    """There is nothing to keep."""
    model = stack.keras.Sequential([stack.keras.layers.Input((2,)), stack.keras.layers.Dense(1)])
    with pytest.raises(ModelError, match="Expected a compiled model"):
        kp.recompile(model)
