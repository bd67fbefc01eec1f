"""A check that the copy of a model computes what the model computes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_precision._adapters.adapter import KerasAdapter
from keras_precision._adapters.layer_paths import paths_of
from keras_precision._adapters.layer_state import lossy_copy

__all__ = ["check_copy", "has_foreign_layers", "is_foreign"]

_FREE_SIZE = 8  # of an axis whose size is not known
_TOLERANCE = 1e-5  # of the largest output: the same operations in another order

Arrays = list[npt.NDArray[Any]]


def check_copy(adapter: KerasAdapter, model: Any, copy: Any) -> None:
    """Raise ModelError, with the first layer that differs, unless a copy computes the outputs of its model.

    Both compute in the same precisions, for made-up inputs. Models that are not built, that take strings, that compute
    at random or that refuse the inputs are not judged, nor are those of Keras's own layers alone, whose state is known.
    """
    samples = _made_up_samples(model) if has_foreign_layers(adapter, model) else None
    if samples is None:
        return
    expected = _outputs(adapter, model, samples)
    if isinstance(expected, Exception):
        return
    received = _outputs(adapter, copy, samples)
    if _agree(expected, received):
        return
    again = _outputs(adapter, model, samples)
    if not _agree(expected, again):
        return
    path = _first_difference(adapter, model, copy, samples)
    cause = received if isinstance(received, Exception) else None
    failure = f" ({type(cause).__name__})" if cause else ""
    raise lossy_copy(
        path, f"its copy computes other values{failure}, since it has state outside its configuration and weights."
    ) from cause


def has_foreign_layers(adapter: KerasAdapter, model: Any) -> bool:
    """Tell whether a model has layers of other packages, or code, inside."""
    return any(is_foreign(adapter, layer) for layer in adapter.walk(model))


def is_foreign(adapter: KerasAdapter, layer: Any) -> bool:
    """Return whether a layer is that of another package, or has code inside."""
    package = type(layer).__module__.partition(".")[0]
    return package not in ("keras", "tf_keras", "keras_precision") or isinstance(layer, adapter.keras.layers.Lambda)


def _made_up_samples(model: Any) -> Arrays | None:
    """Return one array of one sample per input, with values of any magnitude; None if that is impossible."""
    random = np.random.default_rng(0)
    samples = []
    for tensor in getattr(model, "inputs", None) or ():
        kind = str(getattr(tensor.dtype, "name", tensor.dtype))
        shape = (tensor.shape[0] or 1, *(size or _FREE_SIZE for size in tensor.shape[1:]))
        if "float" in kind:
            samples.append((random.normal(size=shape) * 10 ** random.uniform(-1, 4, shape)).astype("float32"))
        elif "int" in kind or kind == "bool":
            samples.append(random.integers(0, 2, shape).astype(kind))  # small enough to be indices
        else:
            return None
    return samples or None


def _outputs(adapter: KerasAdapter, model: Any, samples: Arrays) -> Arrays | Exception:
    try:
        with adapter.without_changes(model):
            return adapter.answers(model, samples)
    except Exception as error:  # noqa: BLE001 - layers may raise anything on made-up inputs
        return error


def _agree(expected: Any, received: Any) -> bool:
    if isinstance(expected, Exception) or isinstance(received, Exception):
        return False
    return all(_is_close(one, other) for one, other in zip(expected, received, strict=True))


def _is_close(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> bool:
    if one.shape != other.shape:
        return False
    if np.array_equal(one, other, equal_nan=one.dtype.kind in "fc"):
        return True
    largest = np.abs(one[np.isfinite(one)]).max(initial=0.0)
    return bool(np.allclose(one, other, rtol=0, atol=_TOLERANCE * largest, equal_nan=True))


def _first_difference(adapter: KerasAdapter, model: Any, copy: Any, samples: Arrays) -> str:
    """Return the path of the first layer whose outputs differ; the name of the model if no single layer's do."""
    expected, received = (_outputs_by_layer(adapter, candidate, samples) for candidate in (model, copy))
    different = (path for path, outputs in expected.items() if not _agree(outputs, received.get(path, KeyError(path))))
    return next(different, str(model.name))


def _outputs_by_layer(adapter: KerasAdapter, model: Any, samples: Sequence[Any]) -> dict[str, Arrays]:
    """Return the outputs of each layer's first call."""
    paths = {id(layer): path for path, layer in paths_of(adapter, model).items()}
    by_path: dict[str, Arrays] = {}

    def watch(layer: Any, proceed: Any) -> Any:
        result = proceed()
        path = paths.get(id(layer))
        if path is not None:
            by_path.setdefault(path, adapter.flat_arrays(result))
        return result

    with adapter.watching_calls(watch):
        _outputs(adapter, model, list(samples))
    return by_path
