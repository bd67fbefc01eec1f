"""A training loop of your own in FP16 with its loss scale watched; the first batch overflows on purpose.

Run: python examples/custom_loop.py --steps 60
     KERAS_BACKEND=torch python examples/custom_loop.py       (for JAX: examples/custom_loop_jax.py)
"""

import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before TensorFlow is imported: fewer start-up messages

import keras
from sklearn.datasets import load_digits

import keras_precision as kp

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--steps", type=int, default=60)
steps, backend = parser.parse_args().steps, keras.backend.backend()
keras.utils.set_random_seed(0)
with kp.precision("mixed_float16"):
    head = keras.layers.Dense(10, "softmax", dtype="float32", name="head")
    model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(64, "relu", name="hidden"), head])
optimizer, loss_of = kp.LossScaleOptimizer(keras.optimizers.Adam(1e-2)), keras.losses.SparseCategoricalCrossentropy()
weights = model.trainable_variables
optimizer.build(weights)
if backend == "tensorflow":
    import tensorflow as tf

    @tf.function
    def train(x, y):
        """Return the loss of a step."""
        with tf.GradientTape() as tape:
            loss = loss_of(y, model(x, training=True))
            scaled = optimizer.scale_loss(loss)
        optimizer.apply(tape.gradient(scaled, weights), weights)  # which divides the gradients again
        return loss
elif backend == "torch":

    def train(x, y):
        """Return the loss of a step."""
        model.zero_grad()
        loss = loss_of(y, model(x, training=True))
        optimizer.scale_loss(loss).backward()
        optimizer.apply([weight.value.grad for weight in weights], weights)  # which divides the gradients again
        return loss.detach()
else:
    raise SystemExit("Expected KERAS_BACKEND=tensorflow or torch. For JAX there is examples/custom_loop_jax.py.")

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
