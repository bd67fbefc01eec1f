"""The facts of a model's layers, and the first batch of data in any form."""

from collections.abc import Iterator, Mapping
from typing import Any

from keras_precision._adapters.adapter import KerasAdapter
from keras_precision._adapters.layer_paths import layer_paths
from keras_precision._adapters.tracing.step_observer import Batch
from keras_precision.core.errors import DataError
from keras_precision.core.layer_facts import LayerFacts

__all__ = ["facts_of", "first_batch", "loss_types"]

_FORMS = "(x, y) as for fit, or x alone; arrays, or anything that yields such batches: tf.data, PyDataset, DataLoader"
_MOST = 256  # samples of arrays


def facts_of(adapter: KerasAdapter, model: Any) -> tuple[LayerFacts, ...]:
    """Return the facts of every layer of a model that has a path.

    Args:
        adapter: The Keras of the model.
        model: The model.

    Returns:
        They, in order.
    """
    outputs = set(map(id, _outputs(adapter, model)))
    return tuple(_facts(adapter, path, layer, id(layer) in outputs) for path, layer in layer_paths(model).items())


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
    """Return the types that a model's losses are computed in.

    Args:
        adapter: The Keras of the model.
        model: The model.

    Returns:
        A type for each loss; none where the model is not compiled with one, and on tf_keras, whose losses have no type:
        they take that of the model's outputs.
    """
    given = getattr(model, "loss", None)
    if given is None or not hasattr(adapter.keras, "ops"):
        return ()
    usual = str(adapter.keras.config.floatx())
    losses = given.values() if isinstance(given, Mapping) else given if isinstance(given, list | tuple) else [given]
    return tuple(str(getattr(each, "dtype", None) or usual) for each in losses if each is not None)


def _outputs(adapter: KerasAdapter, model: Any) -> Iterator[Any]:
    """The layers that make the outputs of a model; that of nested models, looked into."""
    if not isinstance(model, adapter.functional_classes) or not getattr(model, "outputs", None):
        return
    for tensor in model.outputs:
        history = getattr(tensor, "_keras_history", None)
        layer = history[0] if history else None
        if layer is not None and adapter.is_model(layer):
            yield from _outputs(adapter, layer)
        elif layer is not None:
            yield layer


def first_batch(data: Any) -> Batch:
    """Return a batch of data: the first of those that are yielded, or the first samples of arrays.

    Args:
        data: Inputs, or inputs, labels and perhaps weights of samples, as ``fit`` takes them.

    Returns:
        The batch.

    Raises:
        DataError: There is none.
    """
    if data is None or isinstance(data, str | bytes):
        raise DataError(f"Expected data: {_FORMS}. Received: {type(data).__name__}.")
    if not isinstance(data, tuple | list | Mapping) and not hasattr(data, "shape"):
        data = _pulled(data)
    elif isinstance(data, tuple):
        data = tuple(_cut(each) for each in data)
    else:
        data = _cut(data[0] if isinstance(data, list) and len(data) == 1 else data)
    batch = Batch(*data[:3]) if isinstance(data, tuple) else Batch(data)
    size = getattr(batch.x, "shape", (1,))
    if len(size) and size[0] == 0:
        raise DataError(f"Expected at least one sample. Received: inputs of shape {tuple(size)}.")
    return batch


def _pulled(data: Any) -> Any:
    try:
        # A PyDataset counts its batches, and does not end by itself.
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


def _cut(value: Any) -> Any:
    """The first samples of an array, or of each array of a structure."""
    if isinstance(value, Mapping):
        return {key: _cut(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_cut(each) for each in value)
    return value[:_MOST] if getattr(value, "shape", None) else value
