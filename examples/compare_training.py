"""Is lower precision worth it here? Otherwise identical runs, and a verdict no stronger than the data.

Run: python examples/compare_training.py --epochs 5

The backend is that of KERAS_BACKEND. It takes a few minutes: each run has a process of its own.
"""

import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before TensorFlow is imported: fewer start-up messages

import numpy as np
from sklearn.datasets import load_digits

import keras_precision as kp


def build():
    """A small convolutional net, compiled; it is called in each child."""
    import keras

    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((16, 16, 1), name="image"),
            layers.Conv2D(32, 3, activation="relu", name="conv_1"),
            layers.Conv2D(64, 3, strides=2, activation="relu", name="conv_2"),
            layers.Flatten(name="flat"),
            layers.Dense(10, activation="softmax", dtype="float32", name="head"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def main() -> None:
    """Compare three precisions, and save what was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each precision")
    parser.add_argument("--processes", type=int, default=8, help="of each precision, that take turns")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long they take turns, at most")
    parser.add_argument("--precisions", nargs="+", default=["float32", "mixed_bfloat16", "mixed_float16"])
    options = parser.parse_args()
    images, y = load_digits(return_X_y=True)
    x = np.kron(images.reshape(-1, 8, 8) / 16, np.ones((2, 2))).astype("float32")[..., np.newaxis]
    comparison = kp.compare_training(
        build, (x[:1400], y[:1400]), (x[1400:], y[1400:]), options.precisions, seeds=range(options.seeds),
        epochs=options.epochs, batch_size=64, margin=0.02, processes=options.processes,
        timing_seconds=options.seconds, path="comparison.json",
    )  # fmt: skip
    print(kp.render(comparison))
    for run in options.precisions[1:]:
        print(f"{run}: the classes that lose most: {list(comparison.class_changes(run).items())[:3]}")


if __name__ == "__main__":
    main()
