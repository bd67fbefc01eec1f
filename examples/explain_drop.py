"""Ask whom an INT4 file hurts, which layers are to blame, and export the plan that wins the answers back.

Run: python examples/explain_drop.py --epochs 5
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
            layers.Conv2D(16, 3, strides=2, activation="relu", name="conv_1"),
            layers.Conv2D(32, 3, strides=2, activation="relu", name="conv_2"),
            layers.Flatten(name="flat"),
            layers.Dense(10, activation="softmax", name="head"),
        ],
        name="digits",
    )


def main() -> None:
    """Train, export with 4-bit weights, explain the drop, export the plan that mends it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=5)
    options = parser.parse_args()
    pixels, classes = load_digits(return_X_y=True)
    x = np.kron(pixels.reshape(-1, 8, 8) / 16, np.ones((4, 4))).astype("float32")[..., np.newaxis]
    x_train, y_train, x_test, y_test = x[:1300], classes[:1300], x[1300:], classes[1300:]

    keras.utils.set_random_seed(0)
    model = build()
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(x_train, y_train, batch_size=32, epochs=options.epochs, verbose=0)

    calibration = kp.calibrate(model, x_train[:300])
    kp.export_tflite(model, "digits.int4.tflite", "int4", calibration)
    thick = x_test.mean(axis=(1, 2, 3)) > np.median(x_test.mean(axis=(1, 2, 3)))
    explained = kp.explain_drop(model, "digits.int4.tflite", x_test, y_test, calibration, slices={"thick": thick})
    print(kp.render(explained))

    kp.export_tflite(model, "digits.mended.tflite", explained.plan, calibration)
    for path in ("digits.int4.tflite", "digits.mended.tflite"):
        scored = kp.evaluate(path, x_test, y_test, reference=model)
        print(f"{path}: {scored.value('size_bytes'):,} bytes, agreement {100 * scored.value('agreement'):.2f} %")


if __name__ == "__main__":
    main()
