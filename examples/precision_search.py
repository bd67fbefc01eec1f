"""Find the smallest INT8/INT4 file within a drop of accuracy, and check it on images that the search has not seen.

Run: python examples/precision_search.py --epochs 5
"""

import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before TensorFlow is imported: fewer start-up messages

import keras
import numpy as np
from sklearn.datasets import load_digits

import keras_precision as kp


def main() -> None:
    """Train once, search, and compare the best file with the INT8 one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--max-drop", type=float, default=0.02, help="how much accuracy may be lost")
    options = parser.parse_args()
    images, classes = load_digits(return_X_y=True)
    x = (images.reshape(-1, 8, 8) / 16).astype("float32")[..., np.newaxis]
    train, held, test = slice(0, 1000), slice(1000, 1400), slice(1400, None)

    keras.utils.set_random_seed(0)
    widths = (24, 32, 48)
    convolutions = [
        keras.layers.Conv2D(width, 3, padding="same", activation="relu", name=f"conv{width}") for width in widths
    ]
    pool, head = keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(10, activation="softmax", name="head")
    model = keras.Sequential([keras.Input((8, 8, 1)), *convolutions, pool, head], name="digits")
    model.compile(keras.optimizers.Adam(0.005), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(x[train], classes[train], batch_size=32, epochs=options.epochs, verbose=0)

    tuner = kp.PrecisionTuner(
        model,
        x[:200],
        (x[held], classes[held]),
        choices=("int8", "int4", "float32"),
        budget=kp.Budget(max_metric_drop=options.max_drop),
        overwrite=True,
    )
    tuner.search()
    print(kp.render(tuner.pareto_front()))
    print("best plan:", dict(tuner.best_plan.layers), f"after {len(tuner.results())} files, gap {tuner.gap:.1%}")

    results = [kp.export_tflite(model, "int8.tflite", "int8", x[:200]), tuner.export_best("best.tflite")]
    for result, path in zip(results, ("int8.tflite", "best.tflite"), strict=True):
        scored = kp.evaluate(path, x[test], classes[test], reference=model)
        print(path, f"{result.value('size_bytes'):,} bytes, accuracy on unseen images {scored.value('accuracy'):.2%}")


if __name__ == "__main__":
    main()
