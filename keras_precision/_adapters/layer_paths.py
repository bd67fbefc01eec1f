"""The paths of a model's layers, and its training plan: the same on every stack."""

from collections import Counter
from collections.abc import Iterator
from itertools import count
from typing import Any

from keras_precision._adapters import KerasAdapter, adapter_of
from keras_precision.core.errors import ModelError, PlanError
from keras_precision.core.plan import TRAINING_PRECISIONS, PrecisionPlan

__all__ = ["layer_paths", "paths_of", "plan_of"]


def layer_paths(model: Any) -> dict[str, Any]:
    """Return the path of every layer of a model.

    A path consists of the names below the model, through nested models, and ends at the first
    layer that is not a model: ``"block_1/conv"``. Inputs have no path. It is the same on Keras 3
    with any backend and on tf_keras, and for a new, an unbuilt and a reloaded model.
    Layers with automatic names (``dense_7``) are numbered by class and order within their
    model (``dense``, ``dense_1``), so that a path of one build of a model fits the next. A name
    of that form that you chose cannot be distinguished, and is numbered, too: ``layer_paths(model)``
    shows the layer of every path.
    A layer that is used in several places has the path of the first.

    Args:
        model: A Keras 3 or tf_keras model of any kind.

    Returns:
        Path to layer, in the order of ``model.layers``.

    Raises:
        ModelError: The object is not a Keras model.

    Example:
        >>> import keras
        >>> model = keras.Sequential([keras.layers.Dense(4), keras.layers.Dense(2, name="head")])
        >>> list(layer_paths(model))
        ['dense', 'head']
    """
    return paths_of(adapter_of(model), model)


def paths_of(adapter: KerasAdapter, model: Any) -> dict[str, Any]:
    """Return what ``layer_paths`` returns, for a known adapter."""
    if not adapter.is_model(model):
        raise ModelError(f"Expected a Keras model. Received: a layer of type {type(model).__name__}.")
    inside = adapter.children(model)
    if [str(layer.name) for layer in inside] == [model.name] and adapter.is_model(inside[0]):
        model = inside[0]  # the functional form of a subclassed model, which has the same name
    seen: set[int] = set()
    return dict(_walk(adapter, model, "", seen))


def _walk(adapter: KerasAdapter, model: Any, prefix: str, seen: set[int]) -> Iterator[tuple[str, Any]]:
    children = adapter.children(model)
    for name, layer in zip(_names(adapter, children), children, strict=True):
        if id(layer) in seen:
            continue
        seen.add(id(layer))
        if adapter.is_model(layer):
            yield from _walk(adapter, layer, f"{prefix}{name}/", seen)
        else:
            yield f"{prefix}{name}", layer


def _names(adapter: KerasAdapter, layers: list[Any]) -> list[str]:
    """Return the names of sibling layers, with automatic names numbered from the first."""
    stems = [adapter.auto_name(layer) for layer in layers]
    taken = {str(layer.name) for layer, stem in zip(layers, stems, strict=True) if stem is None}
    names = []
    for layer, stem in zip(layers, stems, strict=True):
        name = str(layer.name) if stem is None else _next_free_name(stem, taken)
        taken.add(name)
        names.append(name)
    return names


def _next_free_name(stem: str, taken: set[str]) -> str:
    """Return the first of ``stem``, ``stem_1``, ``stem_2`` and so on that is free."""
    return next(name for name in (stem if not n else f"{stem}_{n}" for n in count()) if name not in taken)


def plan_of(model: Any) -> PrecisionPlan:
    """Return the training plan of a model, read from the policies of its layers.

    Args:
        model: A Keras 3 or tf_keras model of any kind.

    Returns:
        The plan: its default is the policy of most layers (the model's own policy depends
        on where it was loaded), its layers are those with another policy.

    Raises:
        ModelError: The object is not a Keras model.
        PlanError: A layer has a policy that a training plan cannot have, such as plain ``float16``.

    Example:
        >>> import keras
        >>> plan_of(keras.Sequential([keras.layers.Dense(4, dtype="mixed_bfloat16")])).default
        'mixed_bfloat16'
    """
    adapter = adapter_of(model)
    layers = paths_of(adapter, model).items()
    policies = {path: adapter.policy_name(layer) for path, layer in layers if not adapter.is_lookup(layer)}
    for path, policy in policies.items():
        if policy not in TRAINING_PRECISIONS:
            hint = (
                f" Use 'mixed_{policy}', which keeps the weights in float32."
                if f"mixed_{policy}" in TRAINING_PRECISIONS
                else ""
            )
            raise PlanError(
                f"Expected layers with one of the policies {', '.join(TRAINING_PRECISIONS)}. Received: '{path}' with '{policy}'.{hint}"
            )
    # Ties go to the policy that comes first, so that equal models give equal plans.
    default = Counter(policies.values()).most_common(1)[0][0] if policies else adapter.policy_name(model)
    return PrecisionPlan.training(
        default, layers={path: policy for path, policy in policies.items() if policy != default}
    )
