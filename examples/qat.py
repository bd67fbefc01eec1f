"""Train a net in FP32, then as integers: PTQ and QAT files in INT8 and with INT4 weights, in one table.

Run: python examples/qat.py --epochs 12 (--fashion-mnist fashion_mnist.npz for that data in place of digits)
"""

import argparse
import dataclasses
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before TensorFlow is imported: fewer start-up messages

import keras
import numpy as np
from sklearn.datasets import load_digits

import keras_precision as kp


def build(shape: tuple[int, ...]) -> keras.Model:
    """A small depthwise-separable net with batch normalization."""
    layers, stack = keras.layers, [keras.Input(shape, name="image")]
    for filters, strides in ((16, 1), (24, 2), (32, 2)):
        for conv in (layers.DepthwiseConv2D(3, strides, "same"), layers.Conv2D(filters, 1)):
            stack += [conv, layers.BatchNormalization(momentum=0.9), layers.ReLU()]
    return keras.Sequential(
        [*stack, layers.GlobalAveragePooling2D(), layers.Dense(10, activation="softmax")], name="net"
    )


def main() -> None:
    """Train, export, train on with the rounding in place, export again."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--fashion-mnist", help="an .npz file with x_train, y_train, x_test, y_test")
    options = parser.parse_args()
    if options.fashion_mnist:
        data = np.load(options.fashion_mnist)
        x, y = data["x_train"][:12000, ..., None] / 255, data["y_train"][:12000]
        x_test, y_test = data["x_test"][..., None] / 255, data["y_test"]
    else:
        images, classes = load_digits(return_X_y=True)
        images = images.reshape(-1, 8, 8, 1) / 16
        x, y, x_test, y_test = images[:1300], classes[:1300], images[1300:], classes[1300:]
    keras.utils.set_random_seed(0)
    (model := build(x.shape[1:])).compile(keras.optimizers.Adam(3e-3), "sparse_categorical_crossentropy")
    model.fit(x, y, batch_size=64, epochs=options.epochs, verbose=0)
    held_out = (x_test.astype("float32"), y_test)
    results = [kp.export_tflite(model, "FP32.tflite", "float32", validation_data=held_out)]
    for plan in ("int8", "int4"):
        aware = kp.quantize_aware(model, plan, representative_dataset=x[:500])
        aware.optimizer.learning_rate = keras.optimizers.schedules.CosineDecay(1e-3, options.epochs * len(x) // 64)
        aware.fit(x, y, batch_size=64, epochs=options.epochs, verbose=0)
        for name, each in (("PTQ", model), ("QAT", aware)):
            made = kp.export_tflite(each, f"{name}.{plan}.tflite", plan, x[:500], validation_data=held_out)
            results.append(dataclasses.replace(made, name=f"{name} {plan}"))
    print(kp.render(results))


if __name__ == "__main__":
    main()
