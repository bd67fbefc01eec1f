"""FileLayer: a Keras layer that runs a ``.tflite`` file."""

import base64
from typing import Any

import keras
import numpy as np

from keras_precision._adapters.rebuild import compile_argument
from keras_precision.core.model_inputs import Input
from keras_precision.core.system.captured_output import capture_output
from keras_precision.runtimes.tflite.in_memory import InMemoryInterpreter

__all__ = ["FileLayer", "file_model"]


@keras.saving.register_keras_serializable(package="keras_precision")
class FileLayer(keras.layers.Layer):
    """Runs a file sample by sample; it has no weights, and is saved with the file inside.

    Args:
        content: The file, as bytes or in base64.
        inputs: The names of its inputs, in the order of the layer's inputs.
        shapes: The shapes of its outputs, without the batch axis.
        **options: As for any layer.
    """

    def __init__(self, content: bytes | str, inputs: list[str], shapes: list[list[int]], **options: Any) -> None:
        super().__init__(**options, trainable=False)
        self._content = base64.b64decode(content) if isinstance(content, str) else content
        self._inputs, self._shapes = list(inputs), [list(shape) for shape in shapes]
        with capture_output("interpreter"):
            self._runner = InMemoryInterpreter(self._content)

    def call(self, inputs: Any) -> Any:
        arrays = [np.asarray(keras.ops.convert_to_numpy(tensor)) for tensor in keras.tree.flatten(inputs)]
        samples = dict(zip(self._inputs, arrays, strict=True))
        outputs = [keras.ops.convert_to_tensor(array) for array in self._runner.run(samples, 0, len(arrays[0]))]
        return outputs if len(outputs) > 1 else outputs[0]

    def compute_output_spec(self, inputs: Any) -> Any:
        batch = keras.tree.flatten(inputs)[0].shape[0]
        specs = [keras.KerasTensor((batch, *shape), "float32") for shape in self._shapes]
        return specs if len(specs) > 1 else specs[0]

    def get_config(self) -> dict[str, Any]:
        text = base64.b64encode(self._content).decode("ascii")
        base = {key: value for key, value in super().get_config().items() if key != "trainable"}
        return {**base, "content": text, "inputs": self._inputs, "shapes": self._shapes}


def file_model(content: bytes, inputs: list[Input], names: list[str], shapes: list[list[int]], like: Any = None) -> Any:
    """Return a Keras 3 model that runs a ``.tflite`` file for one sample; it runs eagerly and cannot be trained.

    ``inputs`` are those of the model that the file was exported from, ``names`` their names in the file, ``shapes`` the
    shapes of the outputs without the batch axis, and ``like`` a compiled Keras 3 model with the loss and metrics.
    """
    tensors = [keras.Input(entry.shape, dtype=entry.dtype, name=entry.name) for entry in inputs]
    sources = tensors if len(tensors) > 1 else tensors[0]
    model = keras.Model(sources, FileLayer(content, names, shapes, name="file")(sources))
    settings = {key: compile_argument(like, key) for key in ("loss", "metrics")}
    model.compile(
        run_eagerly=True, **_copy_metrics({key: value for key, value in settings.items() if value is not None})
    )
    return model


def _copy_metrics(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the same settings with copies of the metrics, so that the caller's metrics keep their state."""
    metrics = settings.get("metrics")
    if isinstance(metrics, list | tuple):
        settings = dict(settings, metrics=[_copy_metric(metric) for metric in metrics])
    return settings


def _copy_metric(metric: Any) -> Any:
    return type(metric).from_config(metric.get_config()) if isinstance(metric, keras.metrics.Metric) else metric
