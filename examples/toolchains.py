"""Which runtime for this net? TensorFlow Lite, ONNX Runtime and OpenVINO, float32 and int8, in one table.

Run: python examples/toolchains.py --epochs 8
Needs: pip install "keras-precision[tflite,onnx,openvino]" scikit-learn
"""

import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before TensorFlow is imported: fewer start-up messages

import keras
from sklearn.datasets import load_digits

import keras_precision as kp


def main() -> None:
    """Train once, export for each runtime, compare the files by turns, and say which to use."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=30.0, help="of turns, in all")
    parser.add_argument("--openings", type=int, default=5, help="how often each file is opened anew")
    parser.add_argument("--targets", nargs="+", default=["tflite", "onnx", "openvino"])
    parser.add_argument("--output", default="toolchains.json", help="where the comparison is saved")
    options = parser.parse_args()
    images, y = load_digits(return_X_y=True)
    x = (images.reshape(-1, 8, 8, 1) / 16).astype("float32")
    layers = keras.layers
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1), name="image"),
            layers.Conv2D(32, 3, padding="same", activation="relu", name="conv_1"),
            layers.Conv2D(64, 3, activation="relu", name="conv_2"),
            layers.Flatten(name="flat"),
            layers.Dense(10, activation="softmax", name="head"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(x[:1400], y[:1400], batch_size=64, epochs=options.epochs, verbose=0)
    calibration = kp.calibrate(model, x[:200])  # one for all files
    comparison = kp.compare_exports(
        model, x[1400:], y[1400:], ("float32", "int8"), tuple(options.targets),
        representative_dataset=calibration, openings=options.openings, timing_seconds=options.seconds,
    )  # fmt: skip
    print(kp.render(comparison))
    comparison.save(options.output)
    print(f"Use {comparison.recommended}: {comparison.reason}")


if __name__ == "__main__":
    main()
