"""Quantization-aware training: accuracy, agreement, coverage and step time, native and by TFMOT.

Run: python benchmarks/qat.py accuracy --fashion-mnist fashion_mnist.npz
     python benchmarks/qat.py coverage --nets kinds,MobileNetV2,EfficientNetB0
     python benchmarks/qat.py steps
"""

import argparse
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from search_nets import settle

import keras_precision as kp
from keras_precision.core.errors import PrecisionError

warnings.filterwarnings("ignore", message="The structure of `inputs`")


def separable(shape: tuple[int, ...]) -> keras.Model:
    """A depthwise-separable net with batch normalization."""
    layers = keras.layers
    image = keras.Input(shape, name="image")
    x = layers.Conv2D(16, 3, strides=2, padding="same", use_bias=False)(image)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    for filters in (24, 32):
        x = layers.DepthwiseConv2D(3, strides=2, padding="same", use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
        x = layers.Conv2D(filters, 1, use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, layers.Dense(10, activation="softmax")(x), name="separable")


def kinds() -> Iterator[tuple[str, keras.Model]]:
    """Small nets, each with a layer that TFMOT refuses, or a kind that nets are made of."""
    layers = keras.layers
    image, series = (16, 16, 4), (16, 4)
    middles: dict[str, tuple[tuple[int, ...], Callable[[Any], Any]]] = {
        "Conv + BN + ReLU": (image, lambda x: layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(8, 3)(x)))),
        "lone BatchNormalization": (image, lambda x: layers.BatchNormalization()(layers.MaxPooling2D()(x))),
        "Conv(relu) + BN": (image, lambda x: layers.BatchNormalization()(layers.Conv2D(8, 3, activation="relu")(x))),
        "swish": (image, lambda x: layers.Conv2D(8, 3, activation="swish")(x)),
        "SeparableConv2D": (image, lambda x: layers.SeparableConv2D(8, 3, activation="relu")(x)),
        "Conv2DTranspose": (image, lambda x: layers.Conv2DTranspose(8, 2, strides=2)(x)),
        "Rescaling": (image, lambda x: layers.Conv2D(8, 3)(layers.Rescaling(0.5)(x))),
        "AveragePooling2D": (image, lambda x: layers.AveragePooling2D(2)(layers.Conv2D(8, 3)(x))),
        "squeeze-excite": (image, lambda x: layers.Multiply()([x, layers.Dense(4, activation="sigmoid")(x)])),
        "Concatenate": (image, lambda x: layers.Concatenate()([layers.Conv2D(4, 3, padding="same")(x), x])),
        "UpSampling2D bilinear": (
            image,
            lambda x: layers.UpSampling2D(interpolation="bilinear")(layers.Conv2D(8, 3)(x)),
        ),
        "LeakyReLU": (image, lambda x: layers.LeakyReLU()(layers.Conv2D(8, 3)(x))),
        "Conv1D": (series, lambda x: layers.Conv1D(8, 3, activation="relu")(x)),
        "LayerNormalization": (series, lambda x: layers.LayerNormalization()(layers.Dense(8)(x))),
        "MultiHeadAttention": (series, lambda x: layers.MultiHeadAttention(2, 4)(x, x)),
        "EinsumDense": (series, lambda x: layers.EinsumDense("abc,cd->abd", (16, 8))(x)),
        "DepthwiseConv2D": (image, lambda x: layers.DepthwiseConv2D(3, activation="relu")(x)),
        "Conv3D": ((8, 8, 8, 2), lambda x: layers.Conv3D(4, 3, activation="relu")(x)),
        "GELU": (image, lambda x: layers.Conv2D(8, 3, activation="gelu")(x)),
        "GroupNormalization": (image, lambda x: layers.GroupNormalization(2)(layers.Conv2D(8, 3)(x))),
        "LSTM, unrolled": (series, lambda x: layers.LSTM(8, unroll=True)(x)),
        "GRU, unrolled": (series, lambda x: layers.GRU(8, unroll=True)(x)),
        "LSTM, a loop": (series, lambda x: layers.LSTM(8)(x)),
        "Bidirectional, unrolled": (series, lambda x: layers.Bidirectional(layers.LSTM(8, unroll=True))(x)),
        "nested model": (
            series,
            lambda x: keras.Sequential([keras.Input(series), layers.Dense(8, activation="relu"), layers.Dense(8)])(x),
        ),
    }
    for name, (shape, middle) in middles.items():
        values = keras.Input(shape, name="values")
        x = layers.Flatten()(middle(values))
        yield name, keras.Model(values, layers.Dense(3, activation="softmax")(x), name="net")


def application(name: str) -> keras.Model:
    """A net of keras.applications with fresh weights, at a small size."""
    size = 96 if name in ("InceptionV3", "Xception", "InceptionResNetV2", "NASNetMobile") else 64
    keras.utils.set_random_seed(0)
    model = getattr(keras.applications, name)(weights=None, input_shape=(size, size, 3), classes=10)
    settle(model, images(model))
    return model


def images(model: keras.Model) -> np.ndarray:
    """Eight samples of noise, up to 255 for a net that begins by scaling pixels."""
    scales = isinstance(model.layers[1], keras.layers.Rescaling | keras.layers.Normalization)
    most = 255 if scales else 1
    return (most * np.random.default_rng(0).random((8, *model.inputs[0].shape[1:]))).astype("float32")


def covered(model: keras.Model, engine: str) -> str:
    """Quantize, train a step, export and run; say how far it came, and what stayed in float."""
    x, y = images(model), np.random.default_rng(1).integers(0, model.outputs[0].shape[-1], 8)
    try:
        began = time.perf_counter()
        if engine == "PTQ":
            aware = model
        elif engine == "TFMOT alone":
            aware = tfmot_alone(model)
        else:
            aware = kp.quantize_aware(model, "int8", engine, representative_dataset=x)
        if engine != "PTQ":
            # Random weights of a hundred layers: a step of usual length leaves numbers that no format holds.
            aware.compile(_small_step(aware), "sparse_categorical_crossentropy")
            loss = aware.fit(x, y, batch_size=8, verbose=0).history["loss"][-1]
            if not np.isfinite(loss):
                return f"loss {loss}"
        with tempfile.TemporaryDirectory() as folder:
            data = x if engine in ("PTQ", "keras") else None
            result = kp.export_tflite(aware, Path(folder) / "net.tflite", representative_dataset=data)
            kp.edge.predict(Path(folder) / "net.tflite", x[:1])
    except (PrecisionError, ValueError, RuntimeError, TypeError, AttributeError, KeyError) as error:
        return f"- ({type(error).__name__}: {str(error)[:60]})".replace("\n", " ")
    counts = {row.subject: row.value for row in result.measurements if row.metric == "operator_count"}
    floats = sum(count for kind, count in counts.items() if kind.endswith("float32"))
    whole = sum(count for kind, count in counts.items() if not kind.endswith("cast"))
    return f"{floats} of {whole} in float, {time.perf_counter() - began:.0f} s"


def _small_step(model: Any) -> Any:
    module: Any = keras
    if type(model).__module__.startswith("tf_keras"):
        import tf_keras as module
    return module.optimizers.SGD(1e-5, clipnorm=1.0)


def tfmot_alone(model: keras.Model) -> Any:
    """What TFMOT makes of the rebuilt model without our configurations."""
    from keras_precision.quantization.qat.tfmot.bridge import Bridge
    from keras_precision.quantization.qat.tfmot.registry import _tools

    tools = _tools()
    return tools.quantize_model(Bridge(model, plain=True).model)


def coverage(options: argparse.Namespace) -> None:
    """Print how far each engine comes with each net."""
    engines = options.engines.split(",")
    print(f"### Coverage\n\n| net | {' | '.join(engines)} |\n| :-- |{' :-- |' * len(engines)}")
    for name in options.nets.split(","):
        for title, model in kinds() if name == "kinds" else [(name, application(name))]:
            cells = [covered(model, engine) for engine in engines]
            print(f"| {title} | {' | '.join(cells)} |", flush=True)


def accuracy(options: argparse.Namespace) -> None:
    """Print the accuracy of FP32, PTQ and QAT files, and the agreement of QAT with its file."""
    data = np.load(options.fashion_mnist)
    x, y = data["x_train"][: options.samples, ..., None].astype("float32") / 255, data["y_train"][: options.samples]
    x_test, y_test = data["x_test"][: options.tests, ..., None].astype("float32") / 255, data["y_test"][: options.tests]
    print("### Accuracy\n\n| seed | file | accuracy | agreement with its model |\n| --: | :-- | --: | --: |")
    found: dict[str, list[float]] = {}
    for seed in range(options.seeds):
        keras.utils.set_random_seed(seed)
        model = separable(x.shape[1:])
        _fit(model, x, y, 3e-3, options.epochs)
        base = keras.models.clone_model(model)
        base.set_weights(model.get_weights())
        _fit(base, x, y, options.rate, options.more)  # as many steps as the quantization-aware ones train on
        arms: list[tuple[str, str, Any]] = [
            ("FP32", "float32", base),
            ("PTQ int8", "int8", base),
            ("PTQ int4", "int4", base),
        ]
        for plan, engine in (("int8", "tfmot"), ("int8", "keras"), ("int4", "keras")):
            begun = base if options.on_top else model
            aware = kp.quantize_aware(begun, plan, engine, representative_dataset=x[:500])
            _fit(aware, x, y, options.rate, options.more)
            arms.append((f"QAT {plan}, {engine}", plan, aware))
        for name, plan, each in arms:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "net.tflite"
                told = kp.export_tflite(each, path, plan, x[:500], validation_data=(x_test, y_test))
            cells = f"{told.value('accuracy'):.2%} | {told.value('agreement'):.2%}"
            print(f"| {seed} | {name} | {cells} |", flush=True)
            found.setdefault(name, []).append(float(told.value("accuracy")))
    print(_summary({name: float(np.mean(each)) for name, each in found.items()}, options.seeds))


def _summary(means: dict[str, float], seeds: int) -> str:
    """Means over seeds, and what quantization-aware training wins back of what 4-bit weights lose."""
    rows = "".join(f"| mean of {seeds} | {name} | {mean:.2%} | |\n" for name, mean in means.items())
    lost, left = (means["FP32"] - means[name] for name in ("PTQ int4", "QAT int4, keras"))
    drop = means["FP32"] - means["QAT int8, keras"]
    return (
        f"{rows}\nAim: QAT int8 within 0.2 points of FP32: {100 * drop:+.2f}: {'met' if drop <= 0.002 else 'NOT met'}.\n"
        f"Aim: with 4-bit weights, 90 % of what PTQ loses ({100 * lost:.2f} points) recovered: "
        f"{(lost - left) / lost:.0%}: {'met' if lost - left >= 0.9 * lost else 'NOT met'}."
    )


def _fit(model: Any, x: Any, y: Any, rate: float, epochs: int) -> None:
    module: Any = keras
    if type(model).__module__.startswith("tf_keras"):
        import tf_keras as module
    steps = epochs * -(-len(x) // 64)
    schedule = module.optimizers.schedules.CosineDecay(rate, steps)
    model.compile(module.optimizers.Adam(schedule), "sparse_categorical_crossentropy")
    model.fit(x, y, batch_size=64, epochs=epochs, verbose=0)


def steps(options: argparse.Namespace) -> None:
    """Print the time of a training step against the float step of the same Keras, interleaved."""
    import tf_keras

    from keras_precision.quantization.qat.tfmot.bridge import Bridge

    x = np.random.default_rng(0).random((64, 28, 28, 1)).astype("float32")
    y = np.zeros(64, "int32")
    model = separable((28, 28, 1))
    arms = {
        "Keras 3": model,
        "ours, keras": kp.quantize_aware(model, "int8", representative_dataset=x),
        "tf_keras": Bridge(model).model,
        "TFMOT": kp.quantize_aware(model, "int8", "tfmot"),
    }
    for each in arms.values():
        module = tf_keras if type(each).__module__.startswith("tf_keras") else keras
        each.compile(module.optimizers.Adam(), "sparse_categorical_crossentropy")
        for _ in range(5):
            each.train_on_batch(x, y)
    times: dict[str, list[float]] = {name: [] for name in arms}
    for _ in range(options.rounds):
        for name, each in arms.items():
            began = time.perf_counter()
            for _ in range(10):
                each.train_on_batch(x, y)
            times[name].append((time.perf_counter() - began) / 10)
    print("### Step time\n\n| pair | ratio, median (quartiles) |\n| :-- | --: |")
    for name, base in (("ours, keras", "Keras 3"), ("TFMOT", "tf_keras")):
        ratios = np.array(times[name]) / np.array(times[base])
        low, middle, high = np.percentile(ratios, (25, 50, 75))
        print(f"| {name} / {base} | {middle:.2f} ({low:.2f} to {high:.2f}) |")
    ours, theirs = np.median(times["ours, keras"]), np.median(times["TFMOT"])
    print(f"| ours / TFMOT | {ours / theirs:.2f} |")


def main() -> None:
    """Run one part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("accuracy", "coverage", "steps"))
    parser.add_argument("--fashion-mnist", default="fashion_mnist.npz")
    parser.add_argument("--samples", type=int, default=12000)
    parser.add_argument("--tests", type=int, default=10000)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--more", type=int, default=4)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--on-top", action="store_true", help="begin where FP32 ends, with as many epochs more")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--nets", default="kinds")
    parser.add_argument("--engines", default="PTQ,TFMOT alone,tfmot,keras", help="arms of the coverage")
    options = parser.parse_args()
    {"accuracy": accuracy, "coverage": coverage, "steps": steps}[options.part](options)


if __name__ == "__main__":
    main()
