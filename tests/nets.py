"""Small nets for tests, built with whichever Keras is under test."""

from typing import Any

import numpy as np

CONV_PATHS = ["stem", "stem_norm", "stem_relu", "depthwise", "pointwise", "residual", "pool", "drop", "head"]


def mlp(keras: Any, *, head: str | None = None) -> Any:
    """Two dense layers over 8 features, 3 classes; ``head`` is the policy of the last."""
    layers = keras.layers
    return keras.Sequential(
        [
            layers.Input((8,)),
            layers.Dense(16, activation="relu", name="hidden"),
            layers.Dense(3, activation="softmax", name="head", dtype=head),
        ],
        name="mlp",
    )


def conv(keras: Any) -> Any:
    """A convolutional net with a residual sum, over 12 x 12 images, 3 classes; its paths are CONV_PATHS."""
    layers = keras.layers
    image = layers.Input((12, 12, 1), name="image")
    x = layers.Conv2D(8, 3, padding="same", use_bias=False, name="stem")(image)
    x = layers.ReLU(name="stem_relu")(layers.BatchNormalization(name="stem_norm")(x))
    y = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x)
    y = layers.Conv2D(8, 1, activation="relu", name="pointwise")(y)
    x = layers.Add(name="residual")([x, y])
    x = layers.Dropout(0.3, name="drop")(layers.GlobalAveragePooling2D(name="pool")(x))
    return keras.Model(image, layers.Dense(3, activation="softmax", name="head")(x), name="conv")


def unnamed(keras: Any) -> Any:
    """Branches and nested models whose layers Keras names by itself; its paths are UNNAMED_PATHS."""
    layers = keras.layers
    image = layers.Input((6, 6, 2))
    x = layers.Conv2D(4, 3, padding="same")(image)
    left, right = layers.Dense(4)(x), layers.Dense(4)(x)
    x = layers.Add()([right, left, layers.Conv2D(4, 1)(x)])
    inner = keras.Sequential([layers.Input((6, 6, 4)), layers.DepthwiseConv2D(3, padding="same"), layers.Dense(4)])
    other = layers.Input((6, 6, 4))
    x = keras.Model(other, layers.Dense(4)(layers.Dense(4)(other)))(inner(x))
    x = layers.Add(name="chosen")([x, left])
    return keras.Model(image, layers.Dense(2)(layers.GlobalAveragePooling2D()(x)))


UNNAMED_PATHS = [
    "conv2d",
    "dense",
    "dense_1",
    "conv2d_1",
    "add",
    "sequential/depthwise_conv2d",
    "sequential/dense",
    "functional/dense",
    "functional/dense_1",
    "chosen",
    "global_average_pooling2d",
    "dense_2",
]


def nested(keras: Any) -> Any:
    """A model in a model in a model, with a layer that is used twice; its paths are NESTED_PATHS."""
    layers = keras.layers
    core = keras.Sequential([layers.Input((8,)), layers.Dense(8, name="core_dense")], name="core")
    values = layers.Input((8,))
    block = keras.Model(values, layers.Dense(8, name="block_dense")(core(values)), name="block")
    shared = layers.Dense(8, name="shared")
    features = layers.Input((8,), name="features")
    return keras.Model(features, layers.Dense(2, name="head")(shared(block(shared(features)))), name="nested")


NESTED_PATHS = ["shared", "block/core/core_dense", "block/block_dense", "head"]


def composite(keras: Any) -> Any:
    """Layers made of layers: a bidirectional LSTM, a time-distributed one, attention."""
    layers = keras.layers
    series = layers.Input((5, 8), name="series")
    x = layers.Bidirectional(layers.LSTM(4, return_sequences=True), name="both_ways")(series)
    x = layers.MultiHeadAttention(2, 4, name="attention")(x, x)
    x = layers.TimeDistributed(layers.Dense(4), name="each_step")(x)
    return keras.Model(series, layers.Dense(2, name="head")(layers.Flatten(name="flat")(x)), name="composite")


COMPOSITE_PATHS = ["both_ways", "attention", "each_step", "flat", "head"]


def two_inputs(keras: Any) -> Any:
    """Inputs whose alphabetical order is not theirs; two outputs."""
    layers = keras.layers
    image = layers.Input((12, 12, 1), name="z_image")
    table = layers.Input((4,), name="a_table")
    x = layers.Conv2D(4, 3, activation="relu", name="stem")(image)
    x = layers.Concatenate(name="join")(
        [layers.GlobalAveragePooling2D(name="pool")(x), layers.Dense(4, name="side")(table)]
    )
    outputs = [layers.Dense(3, activation="softmax", name="kind")(x), layers.Dense(1, name="size")(x)]
    return keras.Model([image, table], outputs, name="two_inputs")


def unlike_features(keras: Any, rng: np.random.Generator) -> tuple[Any, np.ndarray]:
    """A classifier of four features of unlike scale, of which an int8 input tensor loses three, and 160 samples."""
    scales = np.array([900.0, 30.0, 0.5, 1.0], "float32")
    layers = [keras.layers.Dense(8, "relu", name="dense"), keras.layers.Dense(2, "softmax", name="head")]
    model = keras.Sequential([keras.layers.Input((4,), name="raw"), *layers], name="unlike")
    kernel = rng.normal(size=(4, 8)).astype("float32") / scales[:, np.newaxis]
    layers[0].set_weights([kernel, np.zeros(8, "float32")])
    return model, (rng.normal(size=(160, 4)) * scales).astype("float32")


def subclassed(keras: Any) -> Any:
    """A model whose call is written by hand."""

    class Written(keras.Model):
        def __init__(self) -> None:
            super().__init__(name="written")
            self.first = keras.layers.Dense(4, name="first")
            self.last = keras.layers.Dense(2, name="last")

        def call(self, inputs: Any) -> Any:
            return self.last(self.first(inputs))

    return Written()


def classes(rng: np.random.Generator, count: int = 96) -> tuple[np.ndarray, np.ndarray]:
    """Features of shape (count, 8) in three clusters that a net can tell apart, and their class."""
    kinds = rng.integers(0, 3, count)
    centres = np.random.default_rng(0).normal(size=(3, 8)) * 2
    return (centres[kinds] + rng.normal(size=(count, 8)) * 0.3).astype("float32"), kinds


def images(rng: np.random.Generator, count: int = 48) -> tuple[np.ndarray, np.ndarray]:
    """Images of shape (count, 12, 12, 1) between 0 and 1, with a bar in one of three places, and its class."""
    kinds = rng.integers(0, 3, count)
    pictures = rng.uniform(0, 0.2, (count, 12, 12, 1))
    for picture, kind in zip(pictures, kinds, strict=True):
        picture[4 * kind : 4 * kind + 3] += 0.8
    return pictures.astype("float32"), kinds
