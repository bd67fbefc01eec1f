"""functional_form: a subclassed model as a functional one, called on symbolic inputs; and the sizes of an input signature."""

from collections.abc import Mapping, Sequence
from typing import Any

from keras_precision._adapters.adapter import KerasAdapter
from keras_precision.core.errors import InputError, ModelError
from keras_precision.core.model_inputs import Input, fits_shape, in_order

__all__ = ["functional_form", "shapes_of"]

_SPECS = "keras.InputSpec, tf.TensorSpec or arrays, one per input, as for Model.export of Keras"


def functional_form(adapter: KerasAdapter, model: Any, signature: Any = None) -> Any:
    """Return a functional model with the layers of a subclassed one; any other model as it is.

    The sizes and dtypes of its inputs are those of ``signature``, or those with which the model was built.
    """
    if not adapter.is_model(model) or isinstance(model, adapter.functional_classes):
        return model
    structure = _build_shapes(model) if signature is None else signature
    if structure is None:
        raise ModelError(
            f"Expected a model whose input shape is known. Received: the subclassed model '{model.name}' of type "
            f"{type(model).__name__}, which was not called. Call it on data first, or pass input_signature=."
        )
    try:
        inputs = _mapped(adapter, structure)
        # The name of the subclassed model tells layer_paths that both are one.
        return adapter.keras.Model(inputs, model(inputs), name=model.name)
    except (ValueError, TypeError, AttributeError, NotImplementedError, RuntimeError) as error:
        raise ModelError(
            f"Expected a functional or sequential model, or one that can be called on symbolic inputs. Received: the subclassed model "
            f"'{model.name}' of type {type(model).__name__}, of which Keras reports: {' '.join(str(error).split())[:300]} "
            "Wrap it: x = keras.Input(shape); model = keras.Model(x, subclassed(x))."
        ) from error


def shapes_of(signature: Any, inputs: Sequence[Input]) -> dict[str, tuple[int, ...]]:
    """Return the sizes that a signature gives the inputs, without the batch axis; InputError where they do not fit."""
    specs = in_order(signature if isinstance(signature, Mapping | list | tuple) else [signature], inputs)
    shapes = {}
    for spec, model_input in zip(specs, inputs, strict=True):
        shape = getattr(spec, "shape", None)
        batch, *sizes = shape if shape is not None and len(shape) else (0,)
        if batch not in (None, 1) or None in sizes or not fits_shape(sizes, model_input.shape):
            raise InputError(
                f"Expected an input_signature of {_SPECS}, with a batch of 1 or None and sizes that fit '{model_input.name}' of shape "
                f"{('n', *model_input.shape)}. Received: {spec!r}. Pass keras.InputSpec(shape=(1, ...), dtype='{model_input.dtype}')."
            )
        shapes[model_input.name] = tuple(map(int, sizes))
    return shapes


def _build_shapes(model: Any) -> Any:
    """The shapes of the inputs with which a subclassed model was built; None where they are not known."""
    get_config = getattr(model, "get_build_config", None)
    config = (get_config() if model.built and get_config is not None else None) or {}
    shapes: Any = config.get("input_shape")
    return shapes


def _mapped(adapter: KerasAdapter, structure: Any, name: str | None = None) -> Any:
    """Return symbolic inputs in a structure of shapes or specifications, with the keys of dicts as names."""
    if isinstance(structure, Mapping):
        return {key: _mapped(adapter, value, str(key)) for key, value in structure.items()}
    if isinstance(structure, list | tuple) and not _is_shape(structure):
        if len(structure) == 1:  # the positional arguments of a call, as Model.export of Keras has them
            return _mapped(adapter, structure[0])
        return [_mapped(adapter, value) for value in structure]
    shape = structure if _is_shape(structure) else structure.shape
    dtype = getattr(structure, "dtype", None)
    known = None if dtype is None else str(getattr(dtype, "name", dtype)).removeprefix("torch.")
    floats = known is None or known.startswith(("float", "bfloat"))  # NumPy's float64 is what fit takes as float32
    return adapter.keras.Input(tuple(shape)[1:], dtype=None if floats else known, name=name)


def _is_shape(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(size is None or isinstance(size, int) for size in value)
