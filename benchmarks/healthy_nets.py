"""Nets with nothing wrong, in which no finding may be a warning or an error; used by numerics.py.

Small ones of one idea each, and small forms of what keras.applications has and the examples at keras.io build, all with
random weights.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np

import keras_precision as kp

__all__ = ["KINDS", "POLICIES", "HealthyNet", "body", "healthy_nets"]

WIDTH = 8
POLICIES = ("float32", "mixed_bfloat16", "mixed_float16")
IMAGE, SERIES, TOKENS = (32, 32, 3), (24, 6), 16  # shapes of samples, and words of a text


class HealthyNet(NamedTuple):
    """A compiled net, with data as for ``fit``."""

    name: str
    model: Any
    data: Any


def healthy_nets(keras: Any, count: int, only: str = "") -> Iterator[HealthyNet]:
    """Yield the first small nets, in every policy, and all larger ones, in one policy each; those whose name has ``only``."""
    plain = [(policy, kind) for policy in POLICIES for kind in KINDS][:count]
    small = [(policy, kind, partial(net_of, keras, kind)) for policy, kind in plain]
    large = [(POLICIES[i % 3], name, partial(build, keras)) for i, (name, build) in enumerate(EXAMPLES.items())]
    for number, (policy, name, build) in enumerate([*small, *large]):
        if only not in name:
            continue
        keras.utils.set_random_seed(number)
        with kp.precision(policy):
            model, x, loss = build()
        y = labels_of(model, loss, np.random.default_rng(number))
        model.compile("adam", loss)
        yield HealthyNet(f"{name}, {policy}", model, (x(np.random.default_rng(number)), y))


def labels_of(model: Any, loss: str, rng: np.random.Generator) -> Any:
    """Return labels for 16 samples: class numbers or probabilities for a cross entropy, else normal numbers."""
    *shape, classes = (16, *model.outputs[0].shape[1:])
    if loss == "sparse_categorical_crossentropy":
        return rng.integers(0, classes, shape)
    return rng.integers(0, 2, (*shape, classes)) if "cross" in loss else rng.normal(size=(*shape, classes))


Built = tuple[Any, Callable[[np.random.Generator], Any], str]


def normal(*shape: int) -> Callable[[np.random.Generator], Any]:
    """Return what draws 16 standardized samples of a shape."""
    return lambda rng: rng.normal(size=(16, *shape)).astype("float32")


def words(size: int = 200, length: int = TOKENS) -> Callable[[np.random.Generator], Any]:
    """Return what draws 16 texts as numbers of words, padded with 0 behind their ends."""

    def draw(rng: np.random.Generator) -> Any:
        ends = rng.integers(length // 2, length + 1, (16, 1))
        return rng.integers(1, size, (16, length)) * (np.arange(length) < ends)

    return draw


def last(keras: Any, units: int = 1, activation: str | None = None) -> Any:
    """Return an output layer in float32, as Keras's guide to mixed precision has it."""
    return keras.layers.Dense(units, activation, dtype="float32", name="last")


# ---- Small nets ----

SHAPES: dict[str, tuple[int, ...]] = {
    "conv": (8, 8, 2), "separable": (8, 8, 2), "transposed": (8, 8, 2), "squeeze": (8, 8, 2), "pooling": (8, 8, 2),
    "recurrent": (6, 4), "lstm": (6, 4), "attention": (6, 8),
}  # fmt: skip
KINDS = (
    "dense", "norm", "conv", "recurrent", "residual", "softmax", "dropout",
    "separable", "transposed", "squeeze", "pooling", "lstm", "attention", "tanh",
)  # fmt: skip


def net_of(keras: Any, kind: str) -> Built:
    """Return a small net of a kind."""
    shape = SHAPES.get(kind, (WIDTH,))
    inputs = keras.layers.Input(shape)
    return keras.Model(inputs, last(keras)(body(keras.layers, kind, inputs))), normal(*shape), "mse"


def body(layers: Any, kind: str, inputs: Any) -> Any:
    """Return what a net of a kind makes of its inputs."""
    if len(inputs.shape) == 4:
        return layers.GlobalAveragePooling2D()(image_body(layers, kind, inputs))
    if len(inputs.shape) == 3:
        sequence = {"recurrent": layers.GRU, "lstm": layers.LSTM}.get(kind)
        if sequence is not None:
            return sequence(4)(inputs)
        attended = layers.MultiHeadAttention(2, 4)(inputs, inputs)
        return layers.GlobalAveragePooling1D()(layers.LayerNormalization()(layers.Add()([inputs, attended])))
    hidden = layers.Dense(WIDTH, "tanh" if kind == "tanh" else "relu")(inputs)
    if kind == "residual":
        return layers.Add()([hidden, layers.Dense(WIDTH, "gelu")(hidden)])
    more = {"norm": layers.LayerNormalization, "softmax": layers.Softmax}.get(kind)
    return layers.Dropout(0.5)(hidden) if kind == "dropout" else more()(hidden) if more else layers.Dense(WIDTH)(hidden)


def image_body(layers: Any, kind: str, inputs: Any) -> Any:
    """Return the feature maps of a small net for images."""
    if kind == "pooling":
        return layers.AveragePooling2D(2)(layers.Conv2D(8, 3, activation="relu")(layers.MaxPooling2D()(inputs)))
    convolution = {"separable": layers.SeparableConv2D, "transposed": layers.Conv2DTranspose}.get(kind, layers.Conv2D)
    hidden = layers.ReLU()(layers.BatchNormalization()(convolution(8, 3)(inputs)))
    if kind == "squeeze":
        gate = layers.Dense(8, "sigmoid")(layers.Dense(4, "relu")(layers.GlobalAveragePooling2D(keepdims=True)(hidden)))
        hidden = layers.Multiply()([hidden, gate])
    return hidden


# ---- What keras.applications has ----


def application(name: str, **options: Any) -> Callable[[Any], Built]:
    """Return what builds a model of keras.applications without its head, for small images, with one of ours."""

    def build(keras: Any) -> Built:
        make = getattr(keras.applications, name)
        base = make(weights=None, include_top=False, input_shape=IMAGE, pooling="avg", **options)
        # What has its own Rescaling takes pixels; the others take what their preprocess_input returns.
        pixels = any(type(layer).__name__ == "Rescaling" for layer in base.layers)
        x = (lambda rng: rng.integers(0, 256, (16, *IMAGE)).astype("float32")) if pixels else normal(*IMAGE)
        return keras.Sequential([base, last(keras, 10, "softmax")]), x, "sparse_categorical_crossentropy"

    return build


# ---- What the examples at keras.io build ----


def convnet(keras: Any) -> Built:
    """Two convolutions with pooling, as for MNIST."""
    layers = keras.layers
    steps = [
        layers.Input((28, 28, 1)), layers.Conv2D(16, 3, activation="relu"), layers.MaxPooling2D(),
        layers.Conv2D(32, 3, activation="relu"), layers.MaxPooling2D(), layers.Flatten(), layers.Dropout(0.5),
        last(keras, 10, "softmax"),
    ]  # fmt: skip
    return (
        keras.Sequential(steps),
        lambda rng: rng.random((16, 28, 28, 1)).astype("float32"),
        "sparse_categorical_crossentropy",
    )


def small_xception(keras: Any) -> Built:
    """Separable convolutions with residuals behind a Rescaling, on pixels."""
    layers = keras.layers
    inputs = layers.Input(IMAGE)
    x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(16, 3, 2, "same")(layers.Rescaling(1 / 255)(inputs))))
    for size in (16, 32):
        hidden = layers.BatchNormalization()(layers.SeparableConv2D(size, 3, padding="same")(layers.ReLU()(x)))
        hidden = layers.MaxPooling2D(3, 2, "same")(hidden)
        x = layers.Add()([hidden, layers.Conv2D(size, 1, 2, "same")(x)])
    x = layers.Dropout(0.25)(layers.GlobalAveragePooling2D()(x))
    model = keras.Model(inputs, last(keras, 1, "sigmoid")(x))
    return model, lambda rng: rng.integers(0, 256, (16, *IMAGE)).astype("float32"), "binary_crossentropy"


def autoencoder(keras: Any) -> Built:
    """Convolutions down and up again, for images without noise."""
    layers = keras.layers
    steps = [
        layers.Input((28, 28, 1)), layers.Conv2D(16, 3, activation="relu", padding="same"), layers.MaxPooling2D(padding="same"),
        layers.Conv2DTranspose(16, 3, 2, activation="relu", padding="same"),
        layers.Conv2D(1, 3, activation="sigmoid", padding="same", dtype="float32", name="last"),
    ]  # fmt: skip
    return keras.Sequential(steps), lambda rng: rng.random((16, 28, 28, 1)).astype("float32"), "binary_crossentropy"


def residual_net(keras: Any) -> Built:
    """Residual blocks with the normalization and activation first, as in ResNet V2."""
    layers = keras.layers
    inputs = layers.Input(IMAGE)
    x = layers.Conv2D(16, 3, 2, "same", use_bias=False)(inputs)
    for size in (16, 32):
        first = layers.ReLU()(layers.BatchNormalization()(x))
        hidden = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(size, 3, 2, "same", use_bias=False)(first)))
        x = layers.Add()([layers.Conv2D(size, 3, padding="same")(hidden), layers.Conv2D(size, 1, 2)(first)])
    x = layers.ReLU()(layers.BatchNormalization()(x))
    return classifier(keras, inputs, layers.GlobalAveragePooling2D()(x), normal(*IMAGE))


def mlp_mixer(keras: Any) -> Built:
    """Dense layers across patches and across channels."""
    layers = keras.layers
    inputs = layers.Input(IMAGE)
    x = layers.Reshape((16, 32))(layers.Conv2D(32, 8, 8)(inputs))
    across = layers.Permute((2, 1))(layers.LayerNormalization()(x))
    x = layers.Add()([x, layers.Permute((2, 1))(layers.Dense(16)(layers.Dense(32, "gelu")(across)))])
    x = layers.Add()([x, layers.Dense(32)(layers.Dense(64, "gelu")(layers.LayerNormalization()(x)))])
    return classifier(keras, inputs, layers.GlobalAveragePooling1D()(x), normal(*IMAGE))


def unet(keras: Any) -> Built:
    """A U-Net with skip connections: a class for each pixel."""
    layers = keras.layers
    inputs = layers.Input(IMAGE)
    first = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(8, 3, padding="same")(inputs)))
    second = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(16, 3, 2, "same")(first)))
    joined = layers.Concatenate()([layers.UpSampling2D()(second), first])
    outputs = layers.Conv2D(3, 3, padding="same", activation="softmax", dtype="float32", name="last")(joined)
    return keras.Model(inputs, outputs), normal(*IMAGE), "sparse_categorical_crossentropy"


def convmixer(keras: Any) -> Built:
    """Depthwise and pointwise convolutions with GELU and residuals."""
    layers = keras.layers
    inputs = layers.Input(IMAGE)
    x = layers.BatchNormalization()(layers.Activation("gelu")(layers.Conv2D(32, 4, 4)(inputs)))
    for _ in range(2):
        deep = layers.BatchNormalization()(layers.Activation("gelu")(layers.DepthwiseConv2D(3, padding="same")(x)))
        x = layers.BatchNormalization()(layers.Activation("gelu")(layers.Conv2D(32, 1)(layers.Add()([deep, x]))))
    return classifier(keras, inputs, layers.GlobalAveragePooling2D()(x), normal(*IMAGE))


def vision_transformer(keras: Any) -> Built:
    """Patches, and two blocks of attention."""
    layers = keras.layers
    inputs = layers.Input(IMAGE)
    x = layers.Reshape((16, 32))(layers.Conv2D(32, 8, 8)(inputs))
    for _ in range(2):
        x = block(layers, x, 32)
    return classifier(keras, inputs, layers.Flatten()(layers.LayerNormalization(epsilon=1e-6)(x)), normal(*IMAGE))


def block(layers: Any, x: Any, width: int) -> Any:
    """Return a block of a Transformer: attention and two dense layers, each normalized and with a residual."""
    normalized = layers.LayerNormalization(epsilon=1e-6)(x)
    x = layers.Add()([layers.MultiHeadAttention(4, width // 4, dropout=0.1)(normalized, normalized), x])
    hidden = layers.Dense(2 * width, "gelu")(layers.LayerNormalization(epsilon=1e-6)(x))
    return layers.Add()([layers.Dropout(0.1)(layers.Dense(width)(hidden)), x])


def classifier(keras: Any, inputs: Any, features: Any, x: Any) -> Built:
    """Return a model with a softmax of ten classes."""
    return keras.Model(inputs, last(keras, 10, "softmax")(features)), x, "sparse_categorical_crossentropy"


def text_classifier(keras: Any) -> Built:
    """Embeddings with a mask, their mean, and two dense layers."""
    layers = keras.layers
    steps = [
        layers.Input((TOKENS,), dtype="int32"), layers.Embedding(200, 16, mask_zero=True), layers.GlobalAveragePooling1D(),
        layers.Dense(16, "relu"), last(keras, 1, "sigmoid"),
    ]  # fmt: skip
    return keras.Sequential(steps), words(), "binary_crossentropy"


def text_convolution(keras: Any) -> Built:
    """Embeddings, two convolutions with stride, and the maximum."""
    layers = keras.layers
    steps = [
        layers.Input((TOKENS,), dtype="int32"), layers.Embedding(200, 32), layers.Dropout(0.5),
        layers.Conv1D(32, 5, 2, "same", activation="relu"), layers.Conv1D(32, 5, 2, "same", activation="relu"),
        layers.GlobalMaxPooling1D(), layers.Dense(32, "relu"), last(keras, 1, "sigmoid"),
    ]  # fmt: skip
    return keras.Sequential(steps), words(), "binary_crossentropy"


def bidirectional(keras: Any) -> Built:
    """Two bidirectional LSTMs on embeddings."""
    layers = keras.layers
    steps = [
        layers.Input((TOKENS,), dtype="int32"), layers.Embedding(200, 16),
        layers.Bidirectional(layers.LSTM(8, return_sequences=True)), layers.Bidirectional(layers.LSTM(8)),
        last(keras, 1, "sigmoid"),
    ]  # fmt: skip
    return keras.Sequential(steps), words(), "binary_crossentropy"


def text_transformer(keras: Any) -> Built:
    """Embeddings of words with a mask, and a block of attention."""
    layers = keras.layers
    inputs = layers.Input((TOKENS,), dtype="int32")
    x = block(layers, layers.Embedding(200, 32, mask_zero=True)(inputs), 32)
    return (
        keras.Model(inputs, last(keras, 2, "softmax")(layers.GlobalAveragePooling1D()(x))),
        words(),
        "sparse_categorical_crossentropy",
    )


def series_convolution(keras: Any) -> Built:
    """Three convolutions with batch normalization over time."""
    layers = keras.layers
    inputs = x = layers.Input(SERIES)
    for _ in range(3):
        x = layers.ReLU()(layers.BatchNormalization()(layers.Conv1D(16, 3, padding="same")(x)))
    return classifier(keras, inputs, layers.GlobalAveragePooling1D()(x), normal(*SERIES))


def forecast(keras: Any) -> Built:
    """An LSTM that foretells a number."""
    layers = keras.layers
    return keras.Sequential([layers.Input(SERIES), layers.LSTM(16), last(keras)]), normal(*SERIES), "mse"


def tabular(keras: Any) -> Built:
    """Numbers and two categories, wide and deep."""
    layers = keras.layers
    numbers, first, second = layers.Input((6,)), layers.Input((1,), dtype="int32"), layers.Input((1,), dtype="int32")
    embedded = [layers.Flatten()(layers.Embedding(20, 8)(category)) for category in (first, second)]
    features = layers.Concatenate()([numbers, *embedded])
    deep = layers.BatchNormalization()(layers.Dense(32, "relu")(features))
    model = keras.Model([numbers, first, second], last(keras, 1, "sigmoid")(layers.Concatenate()([features, deep])))

    def draw(rng: np.random.Generator) -> Any:
        return [normal(6)(rng), rng.integers(0, 20, (16, 1)), rng.integers(0, 20, (16, 1))]

    return model, draw, "binary_crossentropy"


def recommender(keras: Any) -> Built:
    """The product of two embeddings."""
    layers = keras.layers
    user, film = layers.Input((1,), dtype="int32"), layers.Input((1,), dtype="int32")
    vectors = [layers.Flatten()(layers.Embedding(50, 16)(each)) for each in (user, film)]
    model = keras.Model([user, film], last(keras, 1, "sigmoid")(layers.Dot(1)(vectors)))
    return model, lambda rng: [rng.integers(0, 50, (16, 1)), rng.integers(0, 50, (16, 1))], "binary_crossentropy"


def super_resolution(keras: Any) -> Built:
    """Four convolutions whose channels become pixels, on values of 0 to 1."""
    layers = keras.layers
    steps = [
        layers.Input((16, 16, 1)), layers.Conv2D(32, 5, activation="relu", padding="same"),
        layers.Conv2D(16, 3, activation="relu", padding="same"), layers.Conv2DTranspose(1, 4, 2, "same", dtype="float32", name="last"),
    ]  # fmt: skip
    return keras.Sequential(steps), lambda rng: rng.random((16, 16, 16, 1)).astype("float32"), "mse"


EXAMPLES: dict[str, Callable[[Any], Built]] = {
    "MobileNet": application("MobileNet", alpha=0.25),
    "MobileNetV2": application("MobileNetV2", alpha=0.35),
    "MobileNetV3Small": application("MobileNetV3Small", alpha=0.75),
    "residual net": residual_net,
    "MLP-Mixer": mlp_mixer,
    "convolutions": convnet,
    "small Xception": small_xception,
    "autoencoder": autoencoder,
    "U-Net": unet,
    "ConvMixer": convmixer,
    "Vision Transformer": vision_transformer,
    "text, mean of embeddings": text_classifier,
    "text, convolutions": text_convolution,
    "text, bidirectional LSTM": bidirectional,
    "text, Transformer": text_transformer,
    "series, convolutions": series_convolution,
    "series, LSTM": forecast,
    "wide and deep": tabular,
    "recommender": recommender,
    "super resolution": super_resolution,
}
