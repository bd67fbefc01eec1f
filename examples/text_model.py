"""Text: which module of Python a line comes from. The embedding is most of the file, and so of what INT8 saves.

Run: python examples/text_model.py --epochs 4
"""

import argparse
import inspect
import os
import re
import tarfile
import turtle
import typing
import zlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before TensorFlow is imported: fewer start-up messages

import keras
import numpy as np

import keras_precision as kp

MODULES, WORDS, LENGTH = (tarfile, turtle, typing), 8192, 12


def read() -> tuple[np.ndarray, np.ndarray]:
    """Return the lines of the modules as the numbers of their words, and which module each is from."""
    numbers, modules = [], []
    for label, module in enumerate(MODULES):
        for words in (re.findall(r"\w+", line) for line in inspect.getsource(module).splitlines()):
            if len(words) > 2:
                row = [1 + zlib.crc32(word.encode()) % (WORDS - 1) for word in words[:LENGTH]]
                numbers.append(row + [0] * (LENGTH - len(row)))
                modules.append(label)
    order = np.random.default_rng(0).permutation(len(modules))
    return np.array(numbers, "int32")[order], np.array(modules)[order]


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--epochs", type=int, default=4)
epochs, layers = parser.parse_args().epochs, keras.layers
x, y = read()
x_train, y_train, x_test, y_test = x[1000:], y[1000:], x[:1000], y[:1000]
keras.utils.set_random_seed(0)
model = keras.Sequential(
    [
        keras.Input((LENGTH,), dtype="int32", name="words"),
        layers.Embedding(WORDS, 32, name="embedding"),
        layers.Conv1D(64, 3, activation="relu", name="phrases"),
        layers.GlobalMaxPooling1D(name="pool"),
        layers.Dense(len(MODULES), activation="softmax", name="head"),
    ]
)
model.compile("adam", "sparse_categorical_crossentropy")
model.fit(x_train, y_train, epochs=epochs, verbose=0)
results = []
for name in ("float32", "float16", "int8_dynamic", "int8"):
    written = kp.export_tflite(model, f"text.{name}.tflite", name, representative_dataset=x_train[:300])
    results.append(written.joined(kp.evaluate(f"text.{name}.tflite", x_test, y_test, reference=model)))
print(kp.render(results))
