"""The advice of each rule, applied to the fault that was planted for it: the finding is gone, and what the model had is kept."""

import numpy as np
import pytest

import keras_precision as kp
from keras_precision._adapters import adapter_of
from keras_precision.core.result import Measurement, Result
from keras_precision.findings.loss_scale_rules import loss_scale_findings

LABELS = np.ones((32, 1), "float32")


def normal(scale=1.0):
    """Inputs of 32 samples."""
    return (np.random.default_rng(7).normal(size=(32, 8)) * scale).astype("float32")


def compiled(keras, *layers, loss="mse"):
    """A model with a metric and an optimizer of its own settings."""
    model = keras.Sequential([keras.layers.Input((8,)), *layers])
    model.compile(keras.optimizers.SGD(0.015625), loss, metrics=["mae"])
    return model


def first(keras, policy="mixed_float16", **options):
    """A dense layer in a policy."""
    return keras.layers.Dense(8, name="first", dtype=policy, **options)


def last(keras, policy="float32", **options):
    """The output layer."""
    return keras.layers.Dense(1, name="last", dtype=policy, **options)


def small(keras):
    """A layer of one's own with an epsilon that is 0 in float16."""

    class Small(keras.layers.Layer):
        epsilon = 1e-9

        def call(self, inputs):
            return inputs / (abs(inputs) + 1.0)

    return Small(name="small", dtype="mixed_float16")


def gain(keras, scale, policy):
    """A factor."""
    return keras.layers.Rescaling(scale, name="gain", dtype=policy)


# Of each code: the layers between the inputs and the head, the scale of the inputs, and the policy of the head.
PLANTED = {
    "plain-float16": (lambda keras: [first(keras, "float16")], 1.0, "float32"),
    "half-output": (lambda keras: [first(keras)], 1.0, "mixed_bfloat16"),
    "tiny-epsilon": (lambda keras: [first(keras), small(keras)], 1.0, "float32"),
    "input-scale": (lambda keras: [first(keras)], 3e4, "float32"),
    "float16-overflow": (
        lambda keras: [first(keras, "float32"), gain(keras, 1e6, "mixed_float16"), keras.layers.Softmax(dtype="float32")],
        1.0,
        "float32",
    ),
}  # fmt: skip


@pytest.mark.every_stack
@pytest.mark.parametrize("code", PLANTED)
def test_the_fault_is_gone(stack, code):
    """The finding of ``kp.diagnose`` does not come back, the model has its metric, and its optimizer has its settings."""
    keras = stack.keras
    keras.utils.set_random_seed(3)
    middle, scale, policy = PLANTED[code]
    model = compiled(keras, *middle(keras), last(keras, policy))
    model.run_eagerly = stack.name != "jax"  # one by one, JAX compiles its operations more slowly than together
    data = normal(scale), LABELS
    with np.errstate(all="ignore"):
        finding = next(
            finding
            for finding in kp.diagnose(model, data)
            if finding.code == code or (code, finding.code) == ("float16-overflow", "non-finite")
        )
        fixed, *_ = finding.apply(model, *data)
        again = kp.diagnose(fixed, data)
    assert (finding.code, finding.subject) not in {(other.code, other.subject) for other in again}
    optimizer = adapter_of(fixed).unscaled(fixed.optimizer)
    assert float(np.asarray(optimizer.learning_rate)) == 0.015625
    fixed.train_on_batch(*data)
    assert "mae" in fixed.evaluate(*data, verbose=0, return_dict=True)
    assert kp.plan_of(fixed).precision_of(list(kp.layer_paths(fixed))[-1]) == "float32"


def test_a_loss_in_half_precision():
    """The same function of outputs and labels in float32."""
    import keras

    model = compiled(keras, first(keras), last(keras), loss=keras.losses.Huber(delta=0.5, dtype="float16"))
    data = normal(), LABELS
    finding = next(finding for finding in kp.diagnose(model, data) if finding.code == "half-loss")
    expected = model.evaluate(*data, verbose=0)
    fixed = finding.apply(model)
    np.testing.assert_allclose(fixed.evaluate(*data, verbose=0), expected, rtol=1e-2)
    assert "half-loss" not in {other.code for other in kp.diagnose(fixed, data)}


def run(model, scale, skipped, batches=100):
    """A run of two epochs that ended at a scale."""
    rows = [
        Measurement("fit", name, value, step)
        for step, count in ((batches // 2, skipped // 2), (batches, skipped))
        for name, value in (("loss_scale", scale), ("skipped_steps", count))
    ]
    return Result("run", tuple(rows), plan=kp.plan_of(model))


@pytest.mark.every_stack
@pytest.mark.parametrize(
    ("code", "policy", "scale", "skipped"),
    [
        ("loss-scale-collapsed", "mixed_float16", 0.0, 100),
        ("loss-scale-infinite", "mixed_float16", float("inf"), 20),
        ("loss-scale-stuck", "mixed_float16", 1.0, 100),
        ("loss-scale-missing", "mixed_float16", None, 0),
        ("loss-scale-idle", "mixed_bfloat16", 2.0**15, 0),
    ],
)
def test_loss_scaling_is_put_right(stack, code, policy, scale, skipped):
    """What the optimizer scales with after the advice gives no finding."""
    if stack.name == "tf_keras" and scale in (0.0, float("inf")):
        pytest.skip("the scale of tf_keras has a floor of 1, and is never infinite")
    model = compiled(stack.keras, first(stack.keras, policy), last(stack.keras))
    adapter = adapter_of(model)
    if scale is not None:
        model = kp.recompile(model, loss_scaling=True)
    (finding,) = loss_scale_findings(run(model, scale, skipped))
    assert finding.code == code
    fixed = finding.apply(model)
    profiler = kp.PrecisionProfiler(verbose=0)
    fixed.fit(normal(), LABELS, batch_size=8, verbose=0, callbacks=[profiler])
    assert [other.code for other in profiler.findings if other.severity != "info"] == []
    assert adapter.is_loss_scaling(fixed.optimizer) == (code not in ("loss-scale-idle", "loss-scale-stuck"))
    assert float(np.asarray(adapter.unscaled(fixed.optimizer).learning_rate)) == 0.015625
