"""The same profiler on any backend of Keras 3: the variable KERAS_BACKEND says which.

Run: KERAS_BACKEND=jax python examples/jax_and_torch.py --epochs 3
     KERAS_BACKEND=torch python examples/jax_and_torch.py --epochs 3
"""

import argparse

import keras
from sklearn.datasets import load_digits

import keras_precision as kp


def build() -> keras.Model:
    """Three dense layers; softmax and loss stay in float32, whatever the policy."""
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((64,), name="pixels"),
            layers.Dense(512, activation="relu", name="hidden_1"),
            layers.Dense(512, activation="relu", name="hidden_2"),
            layers.Dense(10, activation="softmax", dtype="float32", name="head"),
        ],
        name="digits",
    )


def main() -> None:
    """Train in FP32 and BF16, and print one table with its machine."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=3)
    epochs = parser.parse_args().epochs
    pixels, classes = load_digits(return_X_y=True)

    results = []
    for policy in ("float32", "mixed_bfloat16"):
        keras.utils.set_random_seed(0)
        with kp.precision(policy):
            model = build()
        model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
        profiler = kp.PrecisionProfiler(policy, verbose=0)
        model.fit(
            pixels.astype("float32") / 16, classes, batch_size=128, epochs=epochs, validation_split=0.2, verbose=0,
            callbacks=[profiler],
        )  # fmt: skip
        results.append(profiler.result)
    environment = results[0].environment
    print(f"backend: {environment.backend} on {environment.device}, {environment.cores} cores")
    print(kp.render(results))


if __name__ == "__main__":
    main()
