"""watch and step: the profiler in a training loop of the user's own, on every stack."""

import nets
import numpy as np
import pytest

import keras_precision as kp
from keras_precision.core.errors import InputError, ModelError

pytestmark = pytest.mark.every_stack


def tensorflow_step(stack, model, optimizer, scaled):
    """A hand-written tf.function, for Keras 3 and tf_keras."""
    import tensorflow as tf

    legacy = stack.name == "tf_keras"
    loss_of = stack.keras.losses.SparseCategoricalCrossentropy()

    @tf.function
    def step(x, y):
        with tf.GradientTape() as tape:
            loss = loss_of(y, model(x, training=True))
            lifted = loss
            if scaled:
                lifted = optimizer.get_scaled_loss(loss) if legacy else optimizer.scale_loss(loss)
        gradients = tape.gradient(lifted, model.trainable_variables)
        if legacy and scaled:
            gradients = optimizer.get_unscaled_gradients(gradients)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        return loss

    return step


def torch_step(stack, model, optimizer, scaled):
    """A hand-written PyTorch step."""
    loss_of = stack.keras.losses.SparseCategoricalCrossentropy()

    def step(x, y):
        import torch

        loss = loss_of(torch.as_tensor(y), model(torch.as_tensor(x), training=True))
        model.zero_grad()
        (optimizer.scale_loss(loss) if scaled else loss).backward()
        with torch.no_grad():
            optimizer.apply([variable.value.grad for variable in model.trainable_variables], model.trainable_variables)
        return loss

    return step


def jax_step(stack, model, optimizer, scaled):
    """A hand-written JAX step, with its state outside the model."""
    import jax

    loss_of = stack.keras.losses.SparseCategoricalCrossentropy()
    optimizer.build(model.trainable_variables)
    state = [
        [variable.value for variable in variables] for variables in (model.trainable_variables, optimizer.variables)
    ]
    place = [variable.name for variable in optimizer.variables].index("dynamic_scale") if scaled else None
    rest = [variable.value for variable in model.non_trainable_variables]

    def compute(trainable, x, y, scale):
        answers, _ = model.stateless_call(trainable, rest, x, training=True)
        loss = loss_of(y, answers)
        return loss * scale, loss

    @jax.jit
    def update(trainable, slots, x, y):
        scale = slots[place] if scaled else 1.0
        (_, loss), gradients = jax.value_and_grad(compute, has_aux=True)(trainable, x, y, scale)
        return (*optimizer.stateless_apply(slots, gradients, trainable), loss)

    def step(x, y):
        state[0], state[1], loss = update(state[0], state[1], x, y)
        return loss

    return step


MAKE = {"tensorflow": tensorflow_step, "tf_keras": tensorflow_step, "torch": torch_step, "jax": jax_step}


def looped(stack, rng, profiler, policy, *, spoiled=(), batches=10):
    """Train by hand on batches of 8, with an infinity in those ``spoiled``; return the optimizer."""
    keras = stack.keras
    scaled = policy == "mixed_float16"
    with kp.precision(policy):
        model = nets.mlp(keras, head="float32")
    optimizer = keras.optimizers.SGD(0.01)
    if scaled and stack.name == "tf_keras":
        optimizer = keras.mixed_precision.LossScaleOptimizer(optimizer)
    elif scaled:
        optimizer = kp.LossScaleOptimizer(optimizer)
    x, y = nets.classes(rng, 8 * batches)
    for batch in spoiled:
        x[8 * batch] = np.inf
    with profiler.watch(model, optimizer):
        train = MAKE[stack.name](stack, model, optimizer, scaled)
        for start in range(0, len(x), 8):
            with profiler.step(8) as step:
                step.outputs = train(x[start : start + 8], y[start : start + 8])
    return optimizer


def test_loop_gives_the_same_figures_as_fit(stack, rng):
    """Times, throughput, counts and plan are there, and a step without loss scaling skips nothing."""
    profiler = kp.PrecisionProfiler(verbose=0)
    looped(stack, rng, profiler, "mixed_bfloat16")
    result = profiler.result
    assert (result.value("batches"), result.value("samples")) == (10, 80)
    assert result.value("steps_measured") + result.value("warmup_steps") == 10
    assert result.value("samples_per_second") > 0
    assert result.value("step_time_ms") > 0
    assert result.name == "mixed_bfloat16"
    # A JAX loop has its optimizer's state elsewhere; tf_keras tells nothing of single updates.
    assert result.value("skipped_steps") == (0 if stack.name in ("tensorflow", "torch") else None)


def test_skipped_steps_of_a_loop(stack, rng):
    """Overflows in a hand-written step are counted exactly, or unknown."""
    profiler = kp.PrecisionProfiler(verbose=0)
    looped(stack, rng, profiler, "mixed_float16", spoiled=(2, 6, 7))
    assert profiler.result.value("skipped_steps") == (None if stack.name == "jax" else 3)
    if stack.name != "jax":
        assert profiler.result.value("loss_scale") == 2.0**12


def test_updates_that_are_no_skips_are_not_counted(stack, rng):
    """Where a step makes two updates, or none, the count is unknown, never wrong."""
    if stack.name in ("jax", "tf_keras"):
        pytest.skip("unknown there in any case")
    model = nets.mlp(stack.keras, head="float32")
    optimizer = kp.LossScaleOptimizer(stack.keras.optimizers.SGD(0.01))
    x, y = nets.classes(rng, 8)
    profiler = kp.PrecisionProfiler(verbose=0)
    with profiler.watch(model, optimizer):
        train = MAKE[stack.name](stack, model, optimizer, scaled=True)
        for number in range(10):
            with profiler.step(8):
                for _ in range(number % 2):
                    train(x, y)
    assert profiler.result.value("skipped_steps") is None


def test_error_in_the_loop_is_the_users(stack, rng):
    """An exception of the loop comes out as it is; what was measured until then is retained."""
    profiler = kp.PrecisionProfiler(verbose=0)
    model = nets.mlp(stack.keras)
    with pytest.raises(ZeroDivisionError), profiler.watch(model):
        with profiler.step(4):
            pass
        with profiler.step(4):
            raise ZeroDivisionError
    assert (profiler.result.value("batches"), profiler.result.value("samples")) == (1, 4)


def test_misuse_is_refused(stack):
    """step without watch, watch in watch, empty batches and things that are no model are refused."""
    profiler, model = kp.PrecisionProfiler(verbose=0), nets.mlp(stack.keras)
    with pytest.raises(InputError, match="Expected step inside 'with profiler.watch"), profiler.step(8):
        pass
    with pytest.raises(ModelError, match="Expected a Keras model"), profiler.watch("model"):
        pass
    with profiler.watch(model):
        with pytest.raises(InputError, match="Expected one loop at a time"), profiler.watch(model):
            pass
        with pytest.raises(InputError, match="Expected batch_size >= 1. Received: 0"), profiler.step(0):
            pass


def test_a_loop_inside_a_fit_is_refused(stack, rng):
    """One profiler records one of them."""
    keras = stack.keras
    profiler = kp.PrecisionProfiler()

    class Looping(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            with profiler.watch(self.model):
                pass

    model = nets.mlp(keras)
    model.compile("sgd", "sparse_categorical_crossentropy")
    with pytest.raises(InputError, match="one fit or loop at a time. Received: watch inside fit"):
        model.fit(*nets.classes(rng, 8), verbose=0, callbacks=[profiler, Looping()])
