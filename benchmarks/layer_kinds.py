"""One small net for each kind of layer, with samples, for benchmarks/applications.py."""

from collections.abc import Callable
from typing import Any

import numpy as np

SAMPLES = 32


def over(shape: tuple[int, ...], make: Callable[[Any], Any]) -> Callable[[], tuple[Any, np.ndarray]]:
    """Return a builder of a net with one input, which ``make`` hands the layers of Keras and then the input."""

    def build() -> tuple[Any, np.ndarray]:
        import keras

        keras.utils.set_random_seed(0)
        given = keras.Input(shape)
        model = keras.Model(given, make(keras.layers)(given))
        return model, np.random.default_rng(0).normal(size=(SAMPLES, *shape)).astype("float32")

    return build


def embedding() -> tuple[Any, np.ndarray]:
    """Return words looked up, and their mean."""
    import keras

    words = keras.Input((6,), dtype="int32")
    model = keras.Model(words, keras.layers.GlobalAveragePooling1D()(keras.layers.Embedding(20, 8)(words)))
    return model, np.random.default_rng(0).integers(0, 20, (SAMPLES, 6)).astype("int32")


def several(outputs: int) -> Callable[[], tuple[Any, Any]]:
    """Return a builder of a net of two inputs, or of two outputs."""

    def build() -> tuple[Any, Any]:
        import keras

        layers = keras.layers
        left, right = layers.Input((6,), name="left"), layers.Input((4,), name="right")
        joined = layers.Dense(8, activation="relu")(layers.Concatenate()([left, right]))
        heads = [layers.Dense(3)(joined) for _ in range(outputs)]
        rng = np.random.default_rng(0)
        x = {"left": rng.normal(size=(SAMPLES, 6)), "right": rng.normal(size=(SAMPLES, 4))}
        return keras.Model([left, right], heads), {name: values.astype("float32") for name, values in x.items()}

    return build


def nested(layers: Any) -> Callable[[Any], Any]:
    """Return a model in a model."""
    import keras

    inner = keras.Sequential([layers.Input((8,)), layers.Dense(8, activation="relu"), layers.Dense(8)])
    return lambda given: layers.Dense(2)(inner(given))


def shared(layers: Any) -> Callable[[Any], Any]:
    """Return a layer that is used twice."""
    dense = layers.Dense(8, activation="relu")
    return lambda given: dense(dense(given))


IMAGE, SERIES, VOLUME = (8, 8, 3), (6, 8), (4, 6, 6, 2)

KINDS: dict[str, Callable[[], tuple[Any, Any]]] = {
    "Conv1D": over(SERIES, lambda layers: layers.Conv1D(4, 3, activation="relu")),
    "Conv2D": over(IMAGE, lambda layers: layers.Conv2D(4, 3, activation="relu")),
    "Conv3D": over(VOLUME, lambda layers: layers.Conv3D(4, 3, activation="relu")),
    "Conv2DTranspose": over(IMAGE, lambda layers: layers.Conv2DTranspose(4, 3, 2)),
    "Conv1DTranspose": over(SERIES, lambda layers: layers.Conv1DTranspose(4, 3, 2)),
    "DepthwiseConv2D": over(IMAGE, lambda layers: layers.DepthwiseConv2D(3)),
    "SeparableConv2D": over(IMAGE, lambda layers: layers.SeparableConv2D(4, 3)),
    "SeparableConv1D": over(SERIES, lambda layers: layers.SeparableConv1D(4, 3)),
    "Dense": over((8,), lambda layers: layers.Dense(4, activation="relu")),
    "EinsumDense": over(
        SERIES, lambda layers: layers.EinsumDense("abc,cd->abd", output_shape=(None, 4), bias_axes="d")
    ),
    "Embedding": embedding,
    "LSTM": over(SERIES, lambda layers: layers.LSTM(4)),
    "LSTM, unroll=True": over(SERIES, lambda layers: layers.LSTM(4, unroll=True)),
    "GRU": over(SERIES, lambda layers: layers.GRU(4)),
    "GRU, unroll=True": over(SERIES, lambda layers: layers.GRU(4, unroll=True)),
    "Bidirectional(LSTM, unroll=True)": over(SERIES, lambda layers: layers.Bidirectional(layers.LSTM(4, unroll=True))),
    "MultiHeadAttention": over(SERIES, lambda layers: lambda x: layers.MultiHeadAttention(2, 4)(x, x)),
    "LayerNormalization": over(SERIES, lambda layers: layers.LayerNormalization()),
    "GroupNormalization": over(IMAGE, lambda layers: lambda x: layers.GroupNormalization(2)(layers.Conv2D(4, 3)(x))),
    "BatchNormalization, alone": over(IMAGE, lambda layers: layers.BatchNormalization()),
    "Rescaling": over(IMAGE, lambda layers: layers.Rescaling(1 / 127.5, -1)),
    "GELU": over((8,), lambda layers: layers.Dense(8, activation="gelu")),
    "SiLU": over((8,), lambda layers: layers.Dense(8, activation="silu")),
    "hard SiLU": over((8,), lambda layers: layers.Dense(8, activation="hard_silu")),
    "LeakyReLU": over((8,), lambda layers: layers.LeakyReLU()),
    "PReLU": over((8,), lambda layers: layers.PReLU(alpha_initializer="uniform")),
    "Softmax": over((8,), lambda layers: layers.Softmax()),
    "MaxPooling2D": over(IMAGE, lambda layers: layers.MaxPooling2D(2)),
    "AveragePooling2D": over(IMAGE, lambda layers: layers.AveragePooling2D(2)),
    "GlobalMaxPooling2D": over(IMAGE, lambda layers: layers.GlobalMaxPooling2D()),
    "UpSampling2D": over(IMAGE, lambda layers: layers.UpSampling2D()),
    "several inputs": several(1),
    "several outputs": several(2),
    "a model in a model": over((8,), nested),
    "a layer used twice": over((8,), shared),
}
"""A kind of layer to what builds a net of it, and samples."""
