"""A JAX loop of your own in FP16 with its loss scale watched; the first batch overflows on purpose.

Run: KERAS_BACKEND=jax python examples/custom_loop_jax.py --steps 60
"""

import argparse
import os

os.environ.setdefault("KERAS_BACKEND", "jax")  # before Keras is imported

import jax
import keras
from sklearn.datasets import load_digits

import keras_precision as kp

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--steps", type=int, default=60)
steps = parser.parse_args().steps
keras.utils.set_random_seed(0)
with kp.precision("mixed_float16"):
    head = keras.layers.Dense(10, "softmax", dtype="float32", name="head")
    model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(64, "relu", name="hidden"), head])
optimizer, loss_of = kp.LossScaleOptimizer(keras.optimizers.Adam(1e-2)), keras.losses.SparseCategoricalCrossentropy()
weights = model.trainable_variables
optimizer.build(weights)


@jax.jit
def update(values, slots, scale, x, y):
    """Return the new weights, the new state of the optimizer, and the loss."""

    def scaled(values):
        loss = loss_of(y, model.stateless_call(values, [], x, training=True)[0])
        return loss * scale, loss

    (_, loss), gradients = jax.value_and_grad(scaled, has_aux=True)(values)
    return *optimizer.stateless_apply(slots, gradients, values), loss  # which divides the gradients again


def train(x, y):
    """Return the loss of a step. The state goes back into the optimizer, where the profiler reads it."""
    values, slots = ([each.value for each in variables] for variables in (weights, optimizer.variables))
    values, slots, loss = update(values, slots, optimizer.dynamic_scale.value, x, y)
    for variable, value in zip(weights + optimizer.variables, values + slots, strict=True):
        variable.assign(value)
    return loss


pixels, classes = load_digits(return_X_y=True)
x, y = pixels.astype("float32") / 16, classes
x[:32] = 1e6  # float16 ends at 65504
profiler = kp.PrecisionProfiler("own loop", verbose=0)
with profiler.watch(model, optimizer):
    for start in (32 * number % 1792 for number in range(steps)):
        with profiler.step(batch_size=32) as step:
            step.outputs = train(x[start : start + 32], y[start : start + 32])
print(kp.render(profiler.result))
print(f"Skipped {profiler.result.value('skipped_steps')} of {steps} steps; the last loss is {float(step.outputs):.3f}.")
