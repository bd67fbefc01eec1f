"""Facts about the layers of a model, and the first batch of data in any form."""

from collections.abc import Iterator, Mapping
from typing import Any

from keras_precision._adapters.adapter import KerasAdapter
from keras_precision._adapters.model_view import ModelView
from keras_precision._adapters.tracing.step_observer import Batch
from keras_precision.core.errors import DataError
from keras_precision.core.layer_facts import LayerFacts

__all__ = ["facts_of", "first_batch", "loss_types"]

_FORMS = "(x, y) as for fit, or x alone; arrays, or anything that yields such batches: tf.data, PyDataset, DataLoader"
_MAX_SAMPLES = 256  # of arrays


def facts_of(view: ModelView) -> tuple[LayerFacts, ...]:
    """Return the facts of all layers that have a path, in order."""
    outputs = set(map(id, _outputs(view.adapter, view.model)))
    return tuple(_facts(view.adapter, path, layer, id(layer) in outputs) for path, layer in view.layers.items())


def _facts(adapter: KerasAdapter, path: str, layer: Any, is_output: bool) -> LayerFacts:
    epsilon = getattr(layer, "epsilon", None)
    width = getattr(layer, "units", None) or getattr(layer, "filters", None)
    return LayerFacts(
        path=path,
        kind=type(layer).__name__,
        policy=adapter.policy_name(layer),
        compute=str(layer.compute_dtype),
        activation=str(getattr(getattr(layer, "activation", None), "__name__", "")),
        epsilon=float(epsilon) if isinstance(epsilon, float | int) else None,
        is_output=is_output,
        is_own=type(layer).__module__.partition(".")[0] not in ("keras", "tf_keras"),
        width=int(width) if isinstance(width, int) else None,
    )


def loss_types(adapter: KerasAdapter, model: Any) -> tuple[str, ...]:
    """Return the dtypes of a model's losses; none if it has no loss, or on tf_keras, where losses take the outputs' dtype."""
    loss = getattr(model, "loss", None)
    if loss is None or not hasattr(adapter.keras, "ops"):
        return ()
    default = str(adapter.keras.config.floatx())
    losses = loss.values() if isinstance(loss, Mapping) else loss if isinstance(loss, list | tuple) else [loss]
    return tuple(str(getattr(item, "dtype", None) or default) for item in losses if item is not None)


def _outputs(adapter: KerasAdapter, model: Any) -> Iterator[Any]:
    """Yield the layers that produce the outputs of a model, also inside nested models."""
    if not isinstance(model, adapter.functional_classes) or not getattr(model, "outputs", None):
        return
    for tensor in model.outputs:
        # (operation, node index, tensor index) of the call that produced a symbolic tensor, in both Keras versions:
        # https://github.com/keras-team/keras/blob/v3.15.1/keras/src/ops/node.py,
        # https://github.com/keras-team/tf-keras/blob/v2.21.0/tf_keras/engine/node.py
        history = getattr(tensor, "_keras_history", None)
        layer = history[0] if history else None
        if layer is not None and adapter.is_model(layer):
            yield from _outputs(adapter, layer)
        elif layer is not None:
            yield layer


def first_batch(data: Any, size: int | None = None) -> Batch:
    """Return the first batch of data as ``fit`` takes them: the first one yielded, or the first samples of arrays.

    ``size`` is that of the batches that the model takes, if it takes no other.
    """
    if data is None or isinstance(data, str | bytes):
        raise DataError(f"Expected data: {_FORMS}. Received: {type(data).__name__}.")
    if not isinstance(data, tuple | list | Mapping) and not hasattr(data, "shape"):
        data = _first_element(data)
    elif isinstance(data, tuple):
        data = tuple(_first_samples(value, size or _MAX_SAMPLES) for value in data)
    else:
        data = _first_samples(data[0] if isinstance(data, list) and len(data) == 1 else data, size or _MAX_SAMPLES)
    batch = Batch(*data[:3]) if isinstance(data, tuple) else Batch(data)
    shape = getattr(batch.x, "shape", (1,))
    if len(shape) and shape[0] == 0:
        raise DataError(f"Expected at least one sample. Received: inputs of shape {tuple(shape)}.")
    return batch


def _first_element(data: Any) -> Any:
    try:
        # A PyDataset has a number of batches, and its iterator does not end.
        first = (
            data[0]
            if hasattr(data, "__getitem__") and hasattr(data, "__len__") and not _is_loader(data)
            else next(iter(data))
        )
    except (TypeError, StopIteration, IndexError) as error:
        raise DataError(f"Expected data: {_FORMS}. Received: {type(data).__name__}, which yields nothing.") from error
    return tuple(first) if isinstance(first, list) else first


def _is_loader(data: Any) -> bool:
    return hasattr(data, "dataset")


def _first_samples(value: Any, count: int) -> Any:
    """Return the first samples of an array, or of all arrays of a structure."""
    if isinstance(value, Mapping):
        return {key: _first_samples(item, count) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_first_samples(item, count) for item in value)
    return value[:count] if getattr(value, "shape", None) else value
