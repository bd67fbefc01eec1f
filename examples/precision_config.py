"""The precision toggle in a configuration: the code stays the same, a JSON file says how it computes.

Run: python examples/precision_config.py --epochs 3
     python examples/precision_config.py my.json        (copy the file that the first line writes)
"""

import argparse
import json
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before TensorFlow is imported: fewer start-up messages

import keras
from sklearn.datasets import load_digits

import keras_precision as kp

DEFAULT = {"precision": "mixed_bfloat16", "tf32": False, "plan": "training.plan.json", "export": "int8"}


def build() -> keras.Model:
    """A net that says nothing of precision."""
    layers = keras.layers
    image = keras.Input((8, 8, 1), name="image")
    x = layers.Conv2D(32, 3, activation="relu", name="conv")(image)
    x = layers.Flatten(name="flat")(x)
    return keras.Model(image, layers.Dense(10, activation="softmax", name="head")(x))


def run(config: dict[str, Any], epochs: int) -> list[kp.Result]:
    """Train and export as a configuration says; return what was measured."""
    images, classes = load_digits(return_X_y=True)
    x = (images.reshape(-1, 8, 8, 1) / 16).astype("float32")
    keras.utils.set_random_seed(0)
    kp.set_precision(config["precision"], tf32=config["tf32"])
    model = build()
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    if config["plan"]:  # layers that differ from the rest
        model = kp.apply_plan(model, kp.PrecisionPlan.load(config["plan"]))
    profiler = kp.PrecisionProfiler(config["precision"], verbose=0)
    model.fit(x[:1400], classes[:1400], epochs=epochs, validation_split=0.2, verbose=0, callbacks=[profiler])
    print("\n".join(f"  {path:<6} {kp.plan_of(model).precision_of(path)}" for path in kp.layer_paths(model)))
    test = (x[1400:], classes[1400:])
    file = f"digits.{config['export']}.tflite"
    return [profiler.result, kp.export_tflite(model, file, config["export"], x[:200], validation_data=test)]


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("config", nargs="?", type=Path, help="a JSON file; without it, one is written")
parser.add_argument("--epochs", type=int, default=3)
options = parser.parse_args()
if options.config is None:
    options.config = Path("precision.json")
    options.config.write_text(json.dumps(DEFAULT, indent=2))
    kp.PrecisionPlan.training("mixed_bfloat16", layers={"head": "float32"}).save(DEFAULT["plan"])
print(kp.render(run(json.loads(options.config.read_text()), options.epochs)))
