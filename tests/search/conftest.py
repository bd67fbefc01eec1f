"""What the tests of the search share: a small trained net, and images that it has not seen."""

from typing import Any, NamedTuple

import nets
import numpy as np
import pytest


class Trained(NamedTuple):
    """A compiled net, what it was trained on, and what it was not."""

    model: Any
    x: np.ndarray
    y: np.ndarray
    x_val: np.ndarray
    y_val: np.ndarray


@pytest.fixture(scope="session")
def trained() -> Trained:
    """A convolutional net over noisy images, trained a little."""
    import keras

    random = np.random.default_rng(11)
    x, y = nets.images(random, 192)
    x = (x + random.normal(0, 0.35, x.shape)).astype("float32")
    keras.utils.set_random_seed(5)
    model = nets.conv(keras)
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(x[:128], y[:128], batch_size=16, epochs=6, verbose=0)
    return Trained(model, x[:128], y[:128], x[128:], y[128:])


@pytest.fixture(scope="session")
def unsure() -> Trained:
    """A net of four dense layers over classes that overlap: lowering a layer changes answers."""
    import keras

    random = np.random.default_rng(3)
    y = random.integers(0, 5, 480)
    x = (random.normal(size=(5, 16))[y] * 0.6 + random.normal(size=(480, 16))).astype("float32")
    keras.utils.set_random_seed(5)
    widths = {"wide": 64, "middle": 48, "narrow": 32}
    layers = [keras.layers.Dense(width, "relu", name=name) for name, width in widths.items()]
    model = keras.Sequential(
        [keras.Input((16,)), *layers, keras.layers.Dense(5, "softmax", name="head")], name="unsure"
    )
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(x[:320], y[:320], batch_size=32, epochs=5, verbose=0)
    return Trained(model, x[:320], y[:320], x[320:], y[320:])
