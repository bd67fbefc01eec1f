"""The classic table: one trained model as float32, float16 and int8 files, and in Keras itself.

Run: python examples/compare_exports.py --epochs 8
"""

import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before TensorFlow is imported: fewer start-up messages

import keras
from sklearn.datasets import load_digits

import keras_precision as kp


def main() -> None:
    """Train once, export in three precisions, and compare what comes out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=30.0, help="of turns, in all")
    parser.add_argument("--openings", type=int, default=5, help="how often each file is opened anew")
    parser.add_argument("--targets", nargs="+", default=["tflite", "keras"])
    options = parser.parse_args()
    images, y = load_digits(return_X_y=True)
    x = (images.reshape(-1, 8, 8, 1) / 16).astype("float32")
    layers = keras.layers
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1), name="image"),
            layers.Conv2D(32, 3, activation="relu", name="conv_1"),
            layers.Conv2D(64, 3, activation="relu", name="conv_2"),
            layers.Flatten(name="flat"),
            layers.Dense(10, activation="softmax", name="head"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(x[:1400], y[:1400], batch_size=64, epochs=options.epochs, verbose=0)
    comparison = kp.compare_exports(
        model, x[1400:], y[1400:], ("float32", "float16", "int8"), options.targets, representative_dataset=x[:200],
        openings=options.openings, timing_seconds=options.seconds,
    )  # fmt: skip
    print(kp.render(comparison))
    print(f"Use {comparison.recommended}: {comparison.reason}")


if __name__ == "__main__":
    main()
