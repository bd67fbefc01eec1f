"""Trained nets and their data, for benchmarks of exports: those of a folder of models, and some trained here, briefly."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

SEED = 7


class Net(NamedTuple):
    """A classifier, samples to calibrate it with, and samples to test it on.

    Attributes:
        name: How tables call it.
        model: The Keras model; its last layer is a softmax.
        calibration: Samples of the training data, in random order.
        x: Test samples.
        y: Their classes.
    """

    name: str
    model: Any
    calibration: np.ndarray
    x: np.ndarray
    y: np.ndarray


class AtHand(NamedTuple):
    """What a net is made from: its name, the folders of models and of nets that are kept, and training data."""

    name: str
    models: Path
    kept: Path
    x_train: np.ndarray
    y_train: np.ndarray


def nets(data: Path, models: Path, kept: Path, names: list[str] | None = None) -> Iterator[Net]:
    """Yield each net that can be had.

    Args:
        data: Folder of data sets.
        models: Folder of models that others have trained.
        kept: Folder where the nets that are trained here are kept.
        names: Which; all of them by default.

    Yields:
        The nets.
    """
    for name, (data_set, make) in MAKERS.items():
        if names is None or name in names:
            x_train, y_train, x, y = DATA[data_set](data)
            model = make(AtHand(name, models, kept, x_train, y_train))
            order = np.random.default_rng(SEED).permutation(len(x_train))
            shape = (-1, *model.input_shape[1:])  # some take images without the axis of channels
            yield Net(name, model, x_train[order].reshape(shape), x.reshape(shape), y)


def images(file: str, *, scale: float = 255.0) -> Callable[[Path], tuple[np.ndarray, ...]]:
    """Return a reader of images of shape (n, 28, 28, 1)."""

    def read(folder: Path) -> tuple[np.ndarray, ...]:
        held = np.load(folder / file)
        x_train, x = (held[key][..., np.newaxis].astype("float32") / scale for key in ("x_train", "x_test"))
        return x_train, held["y_train"].astype("int64"), x, held["y_test"].astype("int64")

    return read


def spoken(folder: Path) -> tuple[np.ndarray, ...]:
    """Return spoken digits as log-mel images of shape (n, 61, 40, 1), as they come: from about -14 to 4."""
    held = np.load(folder / "fsdd_logmel.npz")
    x_train, x = (held[key][..., np.newaxis].astype("float32") for key in ("x_train", "x_test"))
    return x_train, held["y_train"].astype("int64"), x, held["y_test"].astype("int64")


def keypoints(folder: Path) -> tuple[np.ndarray, ...]:
    """Return the coordinates of hands, of the three gestures that the model knows; every fourth row is a test row."""
    held = np.load(folder / "hand_gesture_keypoint.npz")
    known = held["y"] < 3
    x, y = held["x"][known], held["y"][known].astype("int64")
    test = np.arange(len(y)) % 4 == 0
    return x[~test], y[~test], x[test], y[test]


def loaded(file: str, keras: str = "keras") -> Callable[..., Any]:
    """Return a maker that loads a model of the folder."""

    def make(at_hand: AtHand) -> Any:
        import importlib

        return importlib.import_module(keras).models.load_model(at_hand.models / file, compile=False)

    return make


def trained(build: Callable[[tuple[int, ...]], Any], epochs: int, samples: int) -> Callable[..., Any]:
    """Return a maker that trains a net, or loads the one that was trained before."""

    def make(at_hand: AtHand) -> Any:
        import keras

        name, _, kept, x_train, y_train = at_hand
        path = kept / f"{name}.keras"
        if path.exists():
            return keras.models.load_model(path)
        keras.utils.set_random_seed(SEED)
        model = build(x_train.shape[1:])
        steps = epochs * samples // 64
        rate = keras.optimizers.schedules.CosineDecay(0.0, steps, warmup_target=3e-3, warmup_steps=steps // 10)
        model.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
        model.fit(x_train[:samples], y_train[:samples], batch_size=64, epochs=epochs, verbose=0)
        kept.mkdir(parents=True, exist_ok=True)
        model.save(path)
        return model

    return make


def resnet(shape: tuple[int, ...]) -> Any:
    """Return a ResNet8 of the kind that MLPerf Tiny has."""
    import keras

    layers = keras.layers
    image = layers.Input(shape)

    def conv(x: Any, width: int, size: int, stride: int) -> Any:
        x = layers.Conv2D(width, size, stride, padding="same", use_bias=False)(x)
        return layers.BatchNormalization()(x)

    x = layers.ReLU()(conv(image, 16, 3, 1))
    for width, stride in ((16, 1), (32, 2), (64, 2)):
        y = conv(layers.ReLU()(conv(x, width, 3, stride)), width, 3, 1)
        x = x if stride == 1 else conv(x, width, 1, stride)
        x = layers.ReLU()(layers.Add()([x, y]))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, layers.Dense(10, activation="softmax")(x))


def mobilenet(shape: tuple[int, ...]) -> Any:
    """Return a small net of inverted residuals with linear bottlenecks, as MobileNetV2 has them."""
    import keras

    layers = keras.layers
    image = layers.Input(shape)

    def block(x: Any, width: int, stride: int, expansion: int = 4) -> Any:
        y = layers.Conv2D(x.shape[-1] * expansion, 1, use_bias=False)(x)
        y = layers.ReLU(6.0)(layers.BatchNormalization()(y))
        y = layers.DepthwiseConv2D(3, stride, padding="same", use_bias=False)(y)
        y = layers.ReLU(6.0)(layers.BatchNormalization()(y))
        y = layers.BatchNormalization()(layers.Conv2D(width, 1, use_bias=False)(y))
        return layers.Add()([x, y]) if x.shape == y.shape else y

    x = layers.Conv2D(16, 3, 2, padding="same", use_bias=False)(image)
    x = layers.ReLU(6.0)(layers.BatchNormalization()(x))
    for width, stride in ((16, 1), (24, 2), (24, 1), (32, 1), (32, 1), (48, 2), (48, 1)):
        x = block(x, width, stride)
    x = layers.Conv2D(128, 1, use_bias=False)(x)
    x = layers.ReLU(6.0)(layers.BatchNormalization()(x))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, layers.Dense(10, activation="softmax")(x))


def dscnn(shape: tuple[int, ...]) -> Any:
    """Return a net of separable convolutions, as for keyword spotting."""
    import keras

    layers = keras.layers
    image = layers.Input(shape)
    x = layers.Conv2D(32, (10, 4), 2, padding="same", use_bias=False)(image)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    for _ in range(3):
        x = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
        x = layers.Conv2D(32, 1, use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.GlobalAveragePooling2D()(layers.Dropout(0.2)(x))
    return keras.Model(image, layers.Dense(10, activation="softmax")(x))


DATA = {
    "mnist": images("mnist.npz"),
    "fashion": images("fashion_mnist.npz"),
    "spoken": spoken,
    "keypoints": keypoints,
}
"""Data set to what reads it: training samples and classes, test samples and classes."""

MAKERS: dict[str, tuple[str, Callable[..., Any]]] = {
    "LeNet-1, MNIST": ("mnist", loaded("deepxplore_lenet1.keras")),
    "LeNet-5, MNIST": ("mnist", loaded("deepxplore_lenet5.keras")),
    "LeNet of Keras 2, MNIST": ("mnist", loaded("tensorspace_mnist.h5", "tf_keras")),
    "CNN, Fashion-MNIST": ("fashion", loaded("fashion_cnn_hg_mldl.keras")),
    "MLP, hand key points": ("keypoints", loaded("keypoint_classifier.hdf5")),
    "ResNet, Fashion-MNIST": ("fashion", trained(resnet, 2, 30_000)),
    "MobileNetV2, Fashion-MNIST": ("fashion", trained(mobilenet, 3, 30_000)),
    "MobileNetV2, MNIST": ("mnist", trained(mobilenet, 3, 20_000)),
    "DS-CNN, spoken digits": ("spoken", trained(dscnn, 12, 2_700)),
}
"""Net to its data set and what makes it."""
