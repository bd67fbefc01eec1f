"""One page to send to a colleague: three training runs and two files, with charts and findings.

Run: python examples/report.py --epochs 5
Needs the extra "report" beside "demo".
"""

import argparse

import keras
from sklearn.datasets import load_digits

import keras_precision as kp


def build() -> keras.Model:
    """Return a small convolutional net; the last layer stays in float32."""
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((8, 8, 1), name="image"),
            layers.Conv2D(16, 3, padding="same", activation="relu", name="stem"),
            layers.Conv2D(32, 3, strides=2, activation="relu", name="mix"),
            layers.GlobalAveragePooling2D(name="pool"),
            layers.Dense(10, activation="softmax", name="head", dtype="float32"),
        ]
    )


def main() -> None:
    """Train in three precisions, export in two, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--output", default="report.html")
    options = parser.parse_args()

    images, classes = load_digits(return_X_y=True)
    x = images.reshape(-1, 8, 8, 1).astype("float32") / 16
    train, test = (x[:1400], classes[:1400]), (x[1400:], classes[1400:])
    results = []
    for policy in ("mixed_float16", "mixed_bfloat16", "float32"):
        keras.utils.set_random_seed(1)
        with kp.precision(policy):
            model = build()
        model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
        profiler = kp.PrecisionProfiler(policy, verbose=0)
        model.fit(*train, validation_data=test, epochs=options.epochs, verbose=0, callbacks=[profiler])
        results.insert(0, profiler.result)
    for precision in ("float32", "int8"):
        path = f"digits.{precision}.tflite"
        exported = kp.export_tflite(model, path, precision, representative_dataset=train[0][:200], validation_data=test)
        results.append(exported.joined(kp.benchmark(path, test[0], min_seconds=0.2)))

    print(kp.render(results))
    page = kp.save_report(results, options.output, title="Digits in lower precision")
    print(f"\n{page}: open it in a browser, or send it to somebody.")


if __name__ == "__main__":
    main()
