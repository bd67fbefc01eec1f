"""How large a batch fits, in each precision: predicted from small ones, and verified.

Run: python examples/max_batch_size.py --memory-limit 2000

The backend is that of KERAS_BACKEND. Each step that might need too much memory has a process of its own.
"""

import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before TensorFlow is imported: fewer start-up messages

import keras_precision as kp


def build():
    """A small convolutional net, compiled; most of its memory are activations."""
    import keras

    layers = keras.layers
    convolutions = [layers.Conv2D(32, 3, padding="same", activation="relu") for _ in range(3)]
    head = [layers.GlobalAveragePooling2D(), layers.Dense(10, "softmax", dtype="float32")]
    model = keras.Sequential([keras.Input((32, 32, 3)), *convolutions, *head])
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


def make_batch(count: int):
    """So many samples: their values do not matter."""
    import numpy as np

    return np.ones((count, 32, 32, 3), "float32"), np.zeros(count, "int32")


def main() -> None:
    """Search, and print what was found beside what was planned."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--memory-limit", type=int, default=2000, metavar="MB", help="of the whole process")
    parser.add_argument("--max-batch", type=int, default=65536)
    parser.add_argument("--precisions", nargs="+", default=["float32", "mixed_bfloat16"])
    options = parser.parse_args()
    result = kp.find_max_batch_size(
        build, make_batch, options.precisions, memory_limit=options.memory_limit * 10**6, max_batch=options.max_batch
    )
    print(kp.render(result))
    for precision in options.precisions:
        largest, predicted = (result.value(metric, precision) for metric in ("largest_batch", "predicted_batch"))
        print(f"{precision}: largest batch {largest}, predicted {predicted}")


if __name__ == "__main__":
    main()
