"""The builder: a description becomes a model, with the same weights on every stack, and its samples."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from generated.compositions import COMPOSITIONS
from generated.description import Description, Node
from generated.samples import draw

__all__ = ["Subject", "build", "names_of", "predict"]

Array = np.ndarray[Any, np.dtype[Any]]

COUNT = 96
"""Samples: the first half calibrates, the second is judged."""


@dataclass(frozen=True)
class Subject:
    """A model under test.

    Attributes:
        keras: The module ``keras`` or ``tf_keras`` that built it.
        model: The model.
        calibration: Samples for calibration, one array per input in the order of the model.
        samples: Samples to judge by, in the same order.
        names: The names of the inputs, in that order.
    """

    keras: Any
    model: Any
    calibration: list[Array]
    samples: list[Array]
    names: list[str]

    def predict(self, arrays: list[Array]) -> list[Array]:
        """Return the outputs of the model as float64 arrays."""
        return predict(self.model, arrays)


def build(keras: Any, description: Description) -> Subject:
    """Build the model of a description."""
    keras.backend.clear_session()
    keras.utils.set_random_seed(description["seed"])
    data = [
        draw(entry["values"], COUNT, entry["shape"], entry["dtype"], description["seed"] + number)
        for number, entry in enumerate(description["inputs"])
    ]
    values = [
        keras.layers.Input(tuple(entry["shape"]), name=entry["name"], dtype=entry["dtype"])
        for entry in description["inputs"]
    ]
    inputs = list(values)
    made: dict[int, Any] = {}
    for node in description["nodes"]:
        values.append(_applied(keras, node, values, made, data))
    outputs = [values[number] for number in description["outputs"]]
    model = keras.Model(inputs if len(inputs) > 1 else inputs[0], outputs if len(outputs) > 1 else outputs[0])
    _set_weights(model, made, description)
    half = COUNT // 2
    return Subject(keras, model, [array[:half] for array in data], [array[half:] for array in data], names_of(model))


def names_of(model: Any) -> list[str]:
    """Return the names of the inputs of a model."""
    return [value.name.split(":")[0] for value in model.inputs]


def predict(model: Any, arrays: list[Array]) -> list[Array]:
    """Return the outputs of a model, one array per output, computed in one call as Keras itself does."""
    outputs = model.predict(arrays if len(arrays) > 1 else arrays[0], batch_size=len(arrays[0]), verbose=0)
    listed = list(outputs) if isinstance(outputs, list | tuple) else [outputs]
    return [np.asarray(output) for output in listed]


def _applied(keras: Any, node: Node, values: list[Any], made: dict[int, Any], data: list[Array]) -> Any:
    """Apply a node to its values, and remember the layer under the number of the node's value."""
    given, number = [values[index] for index in node["of"]], len(values)
    options = dict(node.get("options", {}))
    if node["layer"] in COMPOSITIONS:
        return COMPOSITIONS[node["layer"]](keras, *given, **options)
    if "shared" in node:
        layer = made[node["shared"]]
    else:
        layer = getattr(keras.layers, node["layer"])(**options)
        if node.get("adapt"):
            layer.adapt(data[node["of"][0]][: COUNT // 2])
    made[number] = layer
    return layer(given if len(given) > 1 else given[0])


def _set_weights(model: Any, made: dict[int, Any], description: Description) -> None:
    """Draw every weight with NumPy, biases and statistics included: zeros would hide that they are lost."""
    rng = np.random.default_rng(description["seed"] + 1000)
    special = {
        id(variable): node["weights"]
        for number, node in enumerate(description["nodes"], len(description["inputs"]))
        if "weights" in node and number in made
        for variable in made[number].weights
    }
    for variable in model.weights:
        kind = _kind(variable)
        values = _drawn(rng, kind, tuple(variable.shape))
        if values is not None:
            variable.assign(_with_channel(values, kind, special.get(id(variable))).astype("float32"))


def _kind(variable: Any) -> str:
    return str(getattr(variable, "path", variable.name)).split("/")[-1].split(":")[0]


def _drawn(rng: np.random.Generator, kind: str, shape: tuple[int, ...]) -> Array | None:
    """Return values of a weight by its kind; None for what a layer was adapted to."""
    if kind.endswith("kernel"):
        return np.asarray(rng.normal(size=shape) * np.sqrt(1.5 / max(1, np.prod(shape[:-1]))))
    if kind.endswith(("bias", "beta", "moving_mean")):
        return rng.normal(size=shape) * 0.4
    if kind == "gamma":
        return 1 + rng.normal(size=shape) * 0.2
    if kind == "moving_variance":
        return rng.uniform(0.5, 2, shape)
    if kind == "embeddings":
        return rng.normal(size=shape)
    return rng.uniform(0.1, 0.3, shape) if kind == "alpha" else None


def _with_channel(values: Array, kind: str, special: str | None) -> Array:
    """Return a kernel one channel of which is dead, huge or tiny."""
    if special is None or not kind.endswith("kernel"):
        return values
    factor = {"dead": 0.0, "huge": 200.0, "tiny": 1e-5}[special]
    changed = values.copy()
    changed[..., 0] *= factor
    return changed
