"""Nets with one planted numerical fault each, and the same nets without it; used by numerics.py."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import keras_precision as kp

CULPRIT = "culprit"
WIDTH = 8


class Ops:
    """The functions that the layers here need, for Keras 3 and tf_keras."""

    def __init__(self, keras: Any) -> None:
        if hasattr(keras, "ops"):
            ops = keras.ops
            self.sum, self.max, self.mean, self.log, self.softmax = ops.sum, ops.max, ops.mean, ops.log, ops.softmax
        else:
            import tensorflow as ops

            self.sum, self.max, self.mean = ops.reduce_sum, ops.reduce_max, ops.reduce_mean
            self.log, self.softmax = ops.math.log, ops.nn.softmax
        self.exp, self.sqrt, self.square, self.abs = ops.exp, ops.sqrt, ops.square, ops.abs
        self.cast, self.maximum, self.zeros_like, self.stack = ops.cast, ops.maximum, ops.zeros_like, ops.stack


@dataclass
class Bench:
    """What a fault is built with.

    Attributes:
        keras: The Keras.
        ops: Its functions.
        healthy: Whether the twin without the fault is wanted.
        rng: Random numbers, the same for both.
    """

    keras: Any
    ops: Ops
    healthy: bool
    rng: np.random.Generator

    def either(self, healthy: Any, faulty: Any) -> Any:
        """Return the one that is wanted."""
        return healthy if self.healthy else faulty

    def own(self, function: Callable[[Any], Any], name: str = CULPRIT) -> Any:
        """Return a layer of one's own that computes a function."""

        class Own(self.keras.layers.Layer):  # type: ignore[name-defined, misc]
            def call(self, inputs: Any) -> Any:
                return function(inputs)

            def compute_output_shape(self, shape: Any) -> Any:
                return shape

        return Own(name=name)

    def normal(self, *shape: int, scale: float = 1.0) -> np.ndarray:
        """Return normally distributed numbers."""
        return (self.rng.normal(size=shape) * scale).astype("float32")

    def net(self, *middle: Any, policy: str = "float32", shape: tuple[int, ...] = (WIDTH,), first: Any = None) -> Any:
        """Return a compiled net around the layers in the middle."""
        layers = self.keras.layers
        begin = [first if first is not None else layers.Dense(WIDTH, name="first", dtype=policy)]
        end = [] if len(shape) == 1 else [layers.Flatten(name="flat", dtype=policy)]
        last = layers.Dense(1, name="last", dtype="float32")
        model = self.keras.Sequential([layers.Input(shape), *begin, *middle, *end, last])
        model.compile("sgd", "mse")
        return model


Case = tuple[Any, np.ndarray, str]


def function_layer(
    make: Callable[[Bench], Callable[[Any], Any]], scale: float = 1.0, policy: str = "mixed_float16"
) -> Any:
    """Return the fault of a layer of one's own in the middle of a net, with inputs of a scale."""

    def case(bench: Bench) -> Case:
        with kp.precision(policy):
            layer = bench.own(make(bench))
        first = bench.keras.layers.Activation("linear", name="first", dtype=policy)
        return bench.net(layer, policy=policy, first=first), bench.normal(16, WIDTH, scale=scale), CULPRIT

    return case


def by_hand(bench: Bench) -> Callable[[Any], Any]:
    """A softmax, with or without the maximum subtracted."""
    ops = bench.ops

    def softmax(x: Any) -> Any:
        top = ops.exp(bench.either(x - ops.max(x, axis=-1, keepdims=True), x))
        return top / ops.sum(top, axis=-1, keepdims=True)

    return softmax


def variance(bench: Bench) -> Callable[[Any], Any]:
    """A standardization whose variance may be negative."""
    ops = bench.ops

    def standardized(x: Any) -> Any:
        shifted = x * 1e-3 + 100.0
        mean = ops.mean(shifted, axis=-1, keepdims=True)
        squares = ops.mean(ops.square(bench.either(shifted - mean, shifted)), axis=-1, keepdims=True)
        spread = bench.either(squares, squares - ops.square(mean) - 0.06)
        return (shifted - mean) / ops.sqrt(spread + 1e-3)

    return standardized


def masked(bench: Bench) -> Callable[[Any], Any]:
    """A mask of large negative numbers; 0 * infinity is NaN."""
    large = bench.either(-3e4, -1e9)
    return lambda x: x + bench.ops.cast(x > 0, x.dtype) * large


def norm(bench: Bench) -> Callable[[Any], Any]:
    """Division by a size that is 0, with an epsilon that float16 may hold."""
    epsilon = bench.either(1e-3, 1e-9)
    return lambda x: bench.ops.zeros_like(x) / (bench.ops.abs(bench.ops.zeros_like(x)) + epsilon)


def weights_of(value: float, healthy: float, kind: str) -> Any:
    """Return the fault of weights of one layer."""

    def case(bench: Bench) -> Case:
        layers = bench.keras.layers
        images = kind in ("conv", "depthwise", "separable")
        made = {
            "dense": lambda: layers.Dense(WIDTH, name=CULPRIT),
            "conv": lambda: layers.Conv2D(2, 3, name=CULPRIT),
            "depthwise": lambda: layers.DepthwiseConv2D(3, name=CULPRIT),
            "separable": lambda: layers.SeparableConv2D(2, 3, name=CULPRIT),
        }[kind]()
        shape = (6, 6, 2) if images else (WIDTH,)
        first = layers.Activation("linear", name="first")
        model = bench.net(made, layers.Rescaling(1e-3), shape=shape, first=first)
        chosen = bench.either(healthy, value)
        made.set_weights([np.full_like(each, chosen) for each in made.get_weights()])
        return model, np.abs(bench.normal(8, *shape)) * bench.either(1.0, 1e20), CULPRIT

    return case


def sequence(kind: str) -> Any:
    """Return the fault of something that runs over time."""

    def case(bench: Bench) -> Case:
        layers = bench.keras.layers
        explode = bench.either(0.1, 1e9)
        recurrent = {"recurrent_initializer": bench.keras.initializers.Constant(explode), "activation": "relu"}
        wide = {"kernel_initializer": bench.keras.initializers.Constant(bench.either(0.1, 1e20))}
        made = {
            "recurrent": lambda: layers.SimpleRNN(4, name=CULPRIT, **recurrent),
            "bidirectional": lambda: layers.Bidirectional(layers.SimpleRNN(4, **recurrent), name=CULPRIT),
            "distributed": lambda: layers.TimeDistributed(
                bench.own(lambda x: bench.ops.exp(x * bench.either(0.1, 1e3)), "inner"), name=CULPRIT
            ),
            "attention": lambda: layers.MultiHeadAttention(2, 4, name=CULPRIT, **wide),
        }[kind]()
        inputs = layers.Input((10, 4))
        hidden = layers.Activation("linear", name="first")(inputs)
        hidden = made(hidden, hidden) if kind == "attention" else made(hidden)
        outputs = layers.Dense(1, name="last")(layers.Flatten(name="flat")(hidden))
        model = bench.keras.Model(inputs, outputs)
        model.compile("sgd", "mse")
        return model, np.abs(bench.normal(8, 10, 4)) + 1, CULPRIT

    return case


def nested(depth: int) -> Any:
    """Return the fault of a layer inside models inside models."""

    def case(bench: Bench) -> Case:
        keras, path = bench.keras, CULPRIT
        block = keras.Sequential(
            [keras.Input((WIDTH,)), bench.own(lambda x: bench.ops.exp(x * bench.either(0.1, 1e3)))], name="level1"
        )
        path = f"level1/{path}"
        for level in range(2, depth + 1):
            block = keras.Sequential(
                [keras.Input((WIDTH,)), keras.layers.Dense(WIDTH, name=f"in{level}"), block], name=f"level{level}"
            )
            path = f"level{level}/{path}"
        return bench.net(block), bench.normal(16, WIDTH), path

    return case


def branches(bench: Bench) -> Case:
    """One of two branches explodes."""
    layers = bench.keras.layers
    inputs = layers.Input((WIDTH,))
    left = layers.Dense(WIDTH, name="left")(inputs)
    right = bench.own(lambda x: bench.ops.exp(x * bench.either(0.1, 1e3)))(layers.Dense(WIDTH, name="right")(inputs))
    model = bench.keras.Model(inputs, layers.Dense(1, name="last")(layers.Add(name="sum")([left, right])))
    model.compile("sgd", "mse")
    return model, bench.normal(16, WIDTH), CULPRIT


def holder(bench: Bench) -> Case:
    """A layer inside a layer of one's own."""
    inner = bench.own(lambda x: bench.ops.exp(x * bench.either(0.1, 1e3)), "deep")

    class Holder(bench.keras.layers.Layer):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            super().__init__(name=CULPRIT)
            self.inner = inner

        def call(self, inputs: Any) -> Any:
            return self.inner(inputs) + 1.0

    return bench.net(Holder()), bench.normal(16, WIDTH), CULPRIT


def backward(kind: str) -> Any:
    """Return a fault that the backward pass alone has."""

    def case(bench: Bench) -> Case:
        ops, least = bench.ops, bench.either(1e-3, 0.0)
        functions = {
            "root": lambda x: ops.sqrt(ops.maximum(x, ops.zeros_like(x)) + least),
            "length": lambda x: x * 0.5 + ops.sqrt(ops.sum(ops.square(x), axis=-1, keepdims=True) + least),
        }
        x = bench.normal(16, WIDTH)
        x[3] = 0
        first = bench.keras.layers.Activation("linear", name="first")
        return bench.net(bench.own(functions[kind]), bench.keras.layers.Dense(WIDTH), first=first), x, CULPRIT

    return case


def gains(bench: Bench, gain: float, policy: str) -> Case:
    """A layer that multiplies."""
    layers = bench.keras.layers
    layer = layers.Rescaling(bench.either(1.0, gain), name=CULPRIT, dtype=policy)
    return (
        bench.net(layer, layers.Rescaling(1.0, name="behind", dtype=policy), policy=policy),
        bench.normal(16, WIDTH),
        CULPRIT,
    )


def tiny_gradients(bench: Bench) -> Case:
    """Gradients that float16 flushes to 0, even scaled: seen in float32, before anything is lost."""
    layers = bench.keras.layers
    first = layers.Dense(WIDTH, name=CULPRIT)
    return bench.net(layers.Rescaling(bench.either(1.0, 1e-14)), first=first), bench.normal(16, WIDTH), CULPRIT


def unscaled_loss(bench: Bench) -> Case:
    """float16 in each layer, a small loss, and no loss scaling."""
    layers = bench.keras.layers
    first = layers.Dense(WIDTH, name=CULPRIT, dtype="mixed_float16")
    model = bench.net(first=first, policy="mixed_float16")
    model.compile("sgd", "mse", loss_weights=bench.either(1.0, 1e-13))
    return model, bench.normal(16, WIDTH), CULPRIT


def pixels(bench: Bench) -> Case:
    """Inputs of 0 to 255 into float16."""
    x = bench.rng.integers(0, 256, (16, WIDTH)).astype("float32")
    layers = bench.keras.layers
    first = layers.Dense(
        WIDTH, name=CULPRIT, dtype="mixed_float16", kernel_initializer=bench.keras.initializers.Constant(100.0)
    )
    return bench.net(first=first, policy="mixed_float16"), x * bench.either(1 / 255, 1.0), CULPRIT


def facts(kind: str) -> Any:
    """Return a fault that the layers tell of themselves."""

    def case(bench: Bench) -> Case:
        layers, initializers = bench.keras.layers, bench.keras.initializers
        made = {
            "plain float16": lambda: layers.Dense(WIDTH, name=CULPRIT, dtype=bench.either("mixed_float16", "float16")),
            "dead units": lambda: layers.Dense(
                WIDTH, "relu", name=CULPRIT, bias_initializer=initializers.Constant(bench.either(0.0, -99.0))
            ),
            "broken weights": lambda: layers.Dense(
                WIDTH, name=CULPRIT, kernel_initializer=initializers.Constant(bench.either(0.1, np.nan))
            ),
        }[kind]()
        return (
            bench.net(made, policy="mixed_float16" if kind == "plain float16" else "float32"),
            bench.normal(16, WIDTH),
            CULPRIT,
        )

    return case


FAULTS: dict[str, Callable[[Bench], Case]] = {
    "exploding layer, float16": lambda bench: gains(bench, 1e6, "mixed_float16"),
    "exploding layer, seen in float32": lambda bench: gains(bench, 1e6, "float32"),
    "float16 softmax on large logits": function_layer(by_hand, scale=30.0),
    "tiny gradients, seen in float32": tiny_gradients,
    "epsilon that is 0 in float16": function_layer(norm),
    "inputs of 0 to 255": pixels,
    "loss that is not scaled": unscaled_loss,
    "exp in a custom layer, float16": function_layer(lambda b: lambda x: b.ops.exp(x * b.either(0.1, 20.0))),
    "exp in a custom layer, float32": function_layer(
        lambda b: lambda x: b.ops.exp(x * b.either(0.1, 500.0)), policy="float32"
    ),
    "log of 0": function_layer(
        lambda b: lambda x: b.ops.log(b.ops.maximum(x, b.ops.zeros_like(x)) + b.either(1e-3, 0.0)), policy="float32"
    ),
    "division by 0": function_layer(lambda b: lambda x: x / (x - x + b.either(1.0, 0.0)), policy="float32"),
    "square of a square, float16": function_layer(
        lambda b: lambda x: b.ops.square(b.ops.square(x * b.either(1.0, 30.0)))
    ),
    "long sum, float16": function_layer(
        lambda b: lambda x: b.ops.sum(b.ops.abs(x) * b.either(1.0, 4e4), axis=-1, keepdims=True) + x
    ),
    "variance as a difference, float16": function_layer(variance),
    "mask of -1e9, float16": function_layer(masked),
    "inside a nested model": nested(1),
    "inside two nested models": nested(2),
    "inside a layer of one's own": holder,
    "inside attention": sequence("attention"),
    "in a recurrent cell": sequence("recurrent"),
    "inside Bidirectional": sequence("bidirectional"),
    "inside TimeDistributed": sequence("distributed"),
    "in one of two branches": branches,
    "backward only: root at 0": backward("root"),
    "backward only: length of 0": backward("length"),
    "weights of a dense layer": weights_of(1e30, 0.1, "dense"),
    "weights of a convolution": weights_of(1e30, 0.1, "conv"),
    "weights of a depthwise convolution": weights_of(1e30, 0.1, "depthwise"),
    "NaN in weights": facts("broken weights"),
    "plain float16": facts("plain float16"),
    "dead units": facts("dead units"),
}
