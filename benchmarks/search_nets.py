"""The nets and data of benchmarks/search.py: Fashion-MNIST and spoken digits, trained the same way each time."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

__all__ = ["NETS", "Task", "chain", "settle", "task"]


class Task(NamedTuple):
    """A trained net, and its data.

    Attributes:
        model: The net.
        x: Samples that it was trained on.
        y: Their classes.
        x_test: Samples that it has not seen.
        y_test: Their classes.
    """

    model: Any
    x: np.ndarray
    y: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray


def _normalized(keras: Any, x: Any, layer: Any) -> Any:
    x = keras.layers.BatchNormalization(momentum=0.9, name=f"{layer.name}_norm")(layer(x))
    return keras.layers.ReLU(name=f"{layer.name}_relu")(x)


def fashion(keras: Any) -> Any:
    """A residual net of ten layers with weights over 28 x 28 images: 1,024 plans of int8 and int4."""
    layers = keras.layers

    def conv(x: Any, width: int, size: int, name: str, strides: int = 1) -> Any:
        layer = layers.Conv2D(width, size, strides, padding="same", use_bias=False, name=name)
        return _normalized(keras, x, layer)

    image = layers.Input((28, 28, 1), name="image")
    x = conv(image, 16, 3, "stem")
    x = layers.Add(name="add1")([x, conv(conv(x, 16, 3, "b1a"), 16, 3, "b1b")])
    for number, width in ((2, 32), (3, 64)):
        side = conv(x, width, 1, f"b{number}s", 2)
        x = layers.Add(name=f"add{number}")([side, conv(conv(x, width, 3, f"b{number}a", 2), width, 3, f"b{number}b")])
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(image, layers.Dense(10, activation="softmax", name="head")(x), name="fashion")


def spoken(keras: Any) -> Any:
    """A plain net of eight layers with weights over log-mel frames: 256 plans of int8 and int4."""
    layers = keras.layers

    def conv(x: Any, width: int, size: int, name: str, strides: int = 1) -> Any:
        layer = layers.Conv2D(width, size, strides, padding="same", use_bias=False, name=name)
        return _normalized(keras, x, layer)

    mel = layers.Input((61, 40, 1), name="mel")
    x = conv(conv(mel, 24, 3, "stem", 2), 32, 3, "c1")
    x = conv(conv(layers.MaxPooling2D(2, name="p1")(x), 48, 3, "c2"), 64, 1, "c3")
    x = conv(conv(layers.MaxPooling2D(2, name="p2")(x), 64, 3, "c4"), 96, 1, "c5")
    x = layers.Dense(64, activation="relu", name="fc")(layers.GlobalAveragePooling2D(name="pool")(x))
    return keras.Model(mel, layers.Dense(10, activation="softmax", name="head")(x), name="spoken")


NETS = {"fashion": (fashion, "fashion_mnist.npz", 3, 128), "spoken": (spoken, "fsdd_logmel.npz", 8, 32)}
"""Name to the net, its data, epochs and batch size."""


def task(name: str, data: Path, keep: Path) -> Task:
    """Return a net and its data.

    Args:
        name: One of ``NETS``.
        data: The folder of the data sets.
        keep: Where trained nets are kept.

    Returns:
        The net, trained if it was not kept.
    """
    import keras

    build, file, epochs, batch = NETS[name]
    arrays = np.load(data / file)
    scale = 255.0 if arrays["x_train"].dtype == np.uint8 else 1.0
    x, x_test = ((arrays[key] / scale).astype("float32")[..., None] for key in ("x_train", "x_test"))
    path = keep / f"{name}.keras"
    if not path.exists():
        keras.utils.set_random_seed(1)
        model = build(keras)
        model.compile(keras.optimizers.Adam(2e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
        model.fit(x[:20000], arrays["y_train"][:20000], batch_size=batch, epochs=epochs, verbose=0)
        model.save(path)
    return Task(keras.models.load_model(path), x, arrays["y_train"], x_test, arrays["y_test"])


def chain(layers_: int) -> Any:
    """Return an untrained net with so many layers with weights, over 16 x 16 images."""
    import keras

    keras.utils.set_random_seed(1)
    image = x = keras.layers.Input((16, 16, 8))
    for number in range(layers_ - 1):
        width = (8, 16, 24)[number % 3]
        x = keras.layers.Conv2D(width, 3, padding="same", activation="relu", name=f"conv_{number}_a")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, keras.layers.Dense(10, activation="softmax", name="head")(x))


def settle(model: Any, samples: np.ndarray) -> None:
    """Give batch normalizations the statistics of samples, as training would: without, activations of deep nets fade to nothing.

    Args:
        model: An untrained net.
        samples: What it takes.
    """
    import keras

    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    model(samples, training=True)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
