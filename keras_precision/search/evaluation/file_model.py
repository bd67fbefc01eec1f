"""A Keras model that answers as a ``.tflite`` file does, by running it."""

import base64
from typing import Any

import keras
import numpy as np

from keras_precision._adapters.adapter import Input
from keras_precision._adapters.rebuild import compile_argument
from keras_precision.core.system.captured_output import captured
from keras_precision.runtimes.tflite.in_memory import Runner

__all__ = ["FileLayer", "file_model"]


@keras.saving.register_keras_serializable(package="keras_precision")
class FileLayer(keras.layers.Layer):
    """Runs a file on what it is given, sample by sample. It has no weights, and is saved with the file inside.

    Args:
        content: The file, as bytes or in base64.
        inputs: The names of its inputs, in the order in which they are given.
        shapes: The shape of each output, without the batch axis.
        **options: As for any layer.
    """

    def __init__(self, content: bytes | str, inputs: list[str], shapes: list[list[int]], **options: Any) -> None:
        super().__init__(**options, trainable=False)
        self._content = base64.b64decode(content) if isinstance(content, str) else content
        self._inputs, self._shapes = list(inputs), [list(shape) for shape in shapes]
        with captured("interpreter"):
            self._runner = Runner(self._content)

    def call(self, given: Any) -> Any:
        arrays = [np.asarray(keras.ops.convert_to_numpy(each)) for each in keras.tree.flatten(given)]
        samples = dict(zip(self._inputs, arrays, strict=True))
        answers = self._runner.run(samples, 0, len(arrays[0]))
        tensors = [keras.ops.convert_to_tensor(each) for each in answers]
        return tensors if len(tensors) > 1 else tensors[0]

    def compute_output_spec(self, given: Any) -> Any:
        batch = keras.tree.flatten(given)[0].shape[0]
        specs = [keras.KerasTensor((batch, *shape), "float32") for shape in self._shapes]
        return specs if len(specs) > 1 else specs[0]

    def get_config(self) -> dict[str, Any]:
        text = base64.b64encode(self._content).decode("ascii")
        base = {key: value for key, value in super().get_config().items() if key != "trainable"}
        return {**base, "content": text, "inputs": self._inputs, "shapes": self._shapes}


def file_model(content: bytes, inputs: list[Input], names: list[str], shapes: list[list[int]], like: Any = None) -> Any:
    """Return a Keras 3 model that answers as a file does.

    Args:
        content: A ``.tflite`` file for one sample at a time.
        inputs: The inputs of the model that it was made from.
        names: What the file calls these.
        shapes: The shape of each of its outputs, without the batch axis.
        like: A compiled Keras 3 model, whose loss and metrics are taken over; None for none.

    Returns:
        The model. It runs eagerly, sample by sample, and cannot be trained.
    """
    given = [keras.Input(each.shape, dtype=each.dtype, name=each.name) for each in inputs]
    layer = FileLayer(content, names, shapes, name="file")
    model = keras.Model(given if len(given) > 1 else given[0], layer(given if len(given) > 1 else given[0]))
    settings = {key: compile_argument(like, key) for key in ("loss", "metrics")}
    taken = {key: value for key, value in settings.items() if value is not None}
    model.compile(run_eagerly=True, **_fresh(taken))
    return model


def _fresh(settings: dict[str, Any]) -> dict[str, Any]:
    """The same settings, with metrics that have a state of their own."""
    metrics = settings.get("metrics")
    if isinstance(metrics, list | tuple):
        settings = dict(settings, metrics=[_copied(each) for each in metrics])
    return settings


def _copied(metric: Any) -> Any:
    return type(metric).from_config(metric.get_config()) if isinstance(metric, keras.metrics.Metric) else metric
