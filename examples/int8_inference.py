"""Export a trained net as FP32, FP16 and INT8 TensorFlow Lite files, run each, and compare it with the original.

Run: python examples/int8_inference.py --epochs 5
"""

import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before TensorFlow is imported: fewer start-up messages

import keras
import numpy as np
from sklearn.datasets import load_digits

import keras_precision as kp


def build() -> keras.Model:
    """A small convolutional net."""
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((32, 32, 1), name="image"),
            layers.Conv2D(32, 3, strides=2, activation="relu", name="conv_1"),
            layers.Conv2D(64, 3, strides=2, activation="relu", name="conv_2"),
            layers.Flatten(name="flat"),
            layers.Dense(10, activation="softmax", name="head"),
        ],
        name="digits",
    )


def main() -> None:
    """Train once, export three times, check each file on the test images."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="how long each file is timed at the least")
    options = parser.parse_args()
    images, classes = load_digits(return_X_y=True)
    x = np.kron(images.reshape(-1, 8, 8) / 16, np.ones((4, 4))).astype("float32")[..., np.newaxis]
    x_train, y_train, x_test, y_test = x[:1300], classes[:1300], x[1300:], classes[1300:]

    keras.utils.set_random_seed(0)
    model = build()
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(x_train, y_train, batch_size=32, epochs=options.epochs, verbose=0)

    results = []
    for name in ("float32", "float16", "int8"):
        path = f"digits.{name}.tflite"
        written = kp.export_tflite(model, path, name, representative_dataset=x_train[:200])
        scored = kp.evaluate(path, x_test, y_test, reference=model)
        results.append(written.joined(scored).joined(kp.benchmark(path, x_test, min_seconds=options.seconds)))
    print(kp.render(results))


if __name__ == "__main__":
    main()
