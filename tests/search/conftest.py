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
    x_held: np.ndarray
    y_held: np.ndarray


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
