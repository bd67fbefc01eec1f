"""Train the same net in FP32, BF16 and FP16, and see what each precision costs and gains on this machine.

Run: python examples/quickstart.py --epochs 5
"""

import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before TensorFlow is imported: fewer start-up messages

import keras
import numpy as np
from sklearn.datasets import load_digits

import keras_precision as kp


def build() -> keras.Model:
    """A small convolutional net; softmax and loss stay in float32, whatever the policy."""
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((16, 16, 1), name="image"),
            layers.Conv2D(32, 3, activation="relu", name="conv_1"),
            layers.Conv2D(64, 3, strides=2, activation="relu", name="conv_2"),
            layers.Flatten(name="flat"),
            layers.Dense(10, activation="softmax", dtype="float32", name="head"),
        ],
        name="digits",
    )


def main() -> None:
    """Train three times, and print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=5)
    epochs = parser.parse_args().epochs
    images, classes = load_digits(return_X_y=True)
    x = np.kron(images.reshape(-1, 8, 8) / 16, np.ones((2, 2))).astype("float32")[..., np.newaxis]

    results = []
    for policy in ("float32", "mixed_bfloat16", "mixed_float16"):
        keras.utils.set_random_seed(0)
        with kp.precision(policy):
            model = build()
        model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
        profiler = kp.PrecisionProfiler(policy, verbose=0)
        model.fit(x, classes, batch_size=64, epochs=epochs, validation_split=0.2, verbose=0, callbacks=[profiler])
        results.append(profiler.result)
    print(kp.render(results))


if __name__ == "__main__":
    main()
