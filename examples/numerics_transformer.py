"""A finicky Transformer on text: float16 breaks it, findings say where, and the plan that follows mends it.

python examples/numerics_transformer.py --steps 40
"""

import argparse
import inspect

import keras
import numpy as np

import keras_precision as kp

LENGTH, WIDTH, BATCH = 16, 16, 8


class Attention(keras.layers.Layer):
    """Attention as it should not be written: neither scaled, nor with the maximum subtracted."""

    def call(self, inputs):
        """Mix each position with those that are like it."""
        scores = keras.ops.exp(keras.ops.matmul(inputs, keras.ops.transpose(inputs, (0, 2, 1))))
        return keras.ops.matmul(scores / keras.ops.sum(scores, axis=-1, keepdims=True), inputs)


def build(policy, rate=1e-2, *, scaled=False):
    """Return a compiled net that foretells the next letter."""
    keras.utils.set_random_seed(0)
    with kp.precision(policy):
        inputs = keras.Input((LENGTH,), dtype="int32")
        hidden = keras.layers.Embedding(128, WIDTH, keras.initializers.RandomNormal(stddev=1.0))(inputs)
        hidden = keras.layers.Add()([hidden, Attention(name="attention")(hidden)])
        hidden = keras.layers.Dense(WIDTH, "relu")(keras.layers.LayerNormalization()(hidden))
        model = keras.Model(inputs, keras.layers.Dense(128, dtype="float32", name="next")(hidden))
    loss, optimizer = keras.losses.SparseCategoricalCrossentropy(from_logits=True), keras.optimizers.Adam(rate)
    model.compile(kp.LossScaleOptimizer(optimizer) if scaled else optimizer, loss, auto_scale_loss=False)
    return model


def fitted(name, model, steps):
    """Train on the source of a module of Python, print the loss of five epochs, and return the profiler."""
    text = np.frombuffer(inspect.getsource(argparse).encode()[: BATCH * steps * LENGTH + 1], np.uint8).astype("int32")
    x, y = text[:-1].reshape(-1, LENGTH) % 128, text[1:].reshape(-1, LENGTH) % 128
    profiler = kp.PrecisionProfiler(name, layer_stats_every=steps, verbose=0)
    model.fit(x, y, batch_size=BATCH, epochs=5, verbose=0, shuffle=False, callbacks=[profiler])
    print(f"{name:20}", *(f"{loss:6.2f}" for loss in profiler.result.series("loss", "epoch")[1]))
    return profiler


parser = argparse.ArgumentParser()
parser.add_argument("--steps", type=int, default=40)
steps = parser.parse_args().steps
runs = {policy: fitted(policy, build(policy), steps) for policy in ("float32", "mixed_bfloat16", "mixed_float16")}
runs["scaled"] = fitted("float16, scaled", build("mixed_float16", scaled=True), steps)
runs["high rate"] = fitted("float16, high rate", build("mixed_float16", 0.3, scaled=True), steps)
findings = [*kp.lint(build("mixed_float16")), *runs["scaled"].findings]
print(*(f"{each.severity}: {each.message}" for each in findings), sep="\n")
plan = kp.suggest_plan(findings, "mixed_float16")
runs["plan"] = fitted(f"float32: {list(plan.layers)}", kp.apply_plan(build("mixed_float16", scaled=True), plan), steps)
print("Curves:", kp.save_report([each.result for each in runs.values()], "numerics.html"))
