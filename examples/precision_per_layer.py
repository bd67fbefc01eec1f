"""Give some layers another precision, by a plan that is saved, loaded, and read back from the model.

Run: python examples/precision_per_layer.py --epochs 3
"""

import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before TensorFlow is imported: fewer start-up messages

import keras
from sklearn.datasets import load_digits

import keras_precision as kp


def build(plan: kp.PrecisionPlan) -> keras.Model:
    """A net whose layers take their policies from a plan."""
    layers, policy = keras.layers, plan.precision_of

    def block(width: int, name: str) -> keras.Model:
        conv = layers.Conv2D(width, 3, activation="relu", name="conv", dtype=policy(f"{name}/conv"))
        return keras.Sequential([conv], name=name)

    image = keras.Input((8, 8, 1), name="image")
    x = layers.Conv2D(16, 3, padding="same", name="stem", dtype=policy("stem"))(image)
    x = block(32, "block_2")(block(32, "block_1")(x))
    x = layers.GlobalAveragePooling2D(name="pool", dtype=policy("pool"))(x)
    return keras.Model(image, layers.Dense(10, activation="softmax", name="head", dtype=policy("head"))(x))


def trained(name: str, plan: kp.PrecisionPlan, epochs: int) -> kp.Result:
    """Build the net in a plan, train it, and return what was measured."""
    images, classes = load_digits(return_X_y=True)
    keras.utils.set_random_seed(0)
    model = build(plan)
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    profiler = kp.PrecisionProfiler(name, verbose=0)
    x = (images.reshape(-1, 8, 8, 1) / 16).astype("float32")
    model.fit(x, classes, epochs=epochs, validation_split=0.2, verbose=0, callbacks=[profiler])
    print(f"{name}: the precision of each layer, as the model has it")
    print("\n".join(f"  {path:<14} {kp.plan_of(model).precision_of(path)}" for path in kp.layer_paths(model)))
    return profiler.result


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--epochs", type=int, default=3)
epochs = parser.parse_args().epochs
whole = kp.PrecisionPlan.training("float32")
paths = kp.layer_paths(build(whole))
blocks = {"block_./conv": "mixed_bfloat16"}
kp.PrecisionPlan.from_patterns(blocks, paths, kind="training", default="float32").save("plan.json")
print(kp.render([trained("float32", whole, epochs), trained("as planned", kp.PrecisionPlan.load("plan.json"), epochs)]))
