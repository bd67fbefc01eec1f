"""A table in, a number out: what FP16, INT16 and INT8 files do to the error of a regression.

Run: python examples/tabular_regression.py --epochs 60
"""

import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before TensorFlow is imported: fewer start-up messages

import keras
from sklearn.datasets import load_diabetes

import keras_precision as kp


def build(table) -> keras.Model:
    """Two dense layers behind the columns as they come: the scaling is part of the model, and of the file."""
    layers = keras.layers
    scaling = layers.Normalization(name="scaling")
    scaling.adapt(table)
    return keras.Sequential(
        [
            keras.Input((table.shape[1],), name="columns"),
            scaling,
            layers.Dense(64, activation="relu", name="hidden_1"),
            layers.Dense(64, activation="relu", name="hidden_2"),
            layers.Dense(1, name="progression"),
        ]
    )


def main() -> None:
    """Train once, export in four precisions, and compare the errors in the unit of the answer."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--seconds", type=float, default=0.2, help="how long each file is timed at the least")
    options = parser.parse_args()
    table, progression = (each.astype("float32") for each in load_diabetes(return_X_y=True, scaled=False))
    x_train, y_train, x_test, y_test = table[:340], progression[:340], table[340:], progression[340:]

    keras.utils.set_random_seed(0)
    model = build(x_train)
    model.compile(keras.optimizers.Adam(3e-3), "mae")
    model.fit(x_train, y_train, batch_size=32, epochs=options.epochs, verbose=0)

    results = []
    # In integers, one scale for features of unlike range loses the small ones: what scales them stays in float.
    bytes_but_scaling = kp.PrecisionPlan.deployment("int8", layers={"scaling": "float32"})
    for plan in ("float32", "float16", "int16x8", bytes_but_scaling):
        path = f"diabetes.{plan if isinstance(plan, str) else plan.default}.tflite"
        written = kp.export_tflite(model, path, plan, representative_dataset=x_train, io="float32")
        scored = kp.evaluate(path, x_test, y_test, metrics=["mae", "root_mean_squared_error"], reference=model)
        results.append(written.joined(scored).joined(kp.benchmark(path, x_test, min_seconds=options.seconds)))
    print(kp.render(results))


if __name__ == "__main__":
    main()
