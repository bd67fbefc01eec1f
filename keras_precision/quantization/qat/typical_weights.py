"""A copy of a model with the operators that its file has after training."""

from typing import Any

import numpy as np

from keras_precision._adapters.layer_paths import paths_of
from keras_precision._adapters.layer_state import copy_state
from keras_precision._adapters.model_view import ModelView
from keras_precision._adapters.rebuild import expect_faithful_copies, rebuilt_with

__all__ = ["with_typical_weights"]

_SPREAD = 1e-3


def with_typical_weights(view: ModelView) -> ModelView:
    """Return a model whose weights all differ from each other: a copy where some are equal, as before training.

    TFLiteConverter removes a bias of zeros, and a product with ones. Training brings them back, with the activations
    between them.
    """
    if not any(map(_is_constant, _floats(view.model))):
        return view
    expect_faithful_copies(view.adapter, view.model)
    copy = rebuilt_with(view.adapter, view.model, lambda config: config)
    copied = paths_of(view.adapter, copy)
    for path, layer in view.layers.items():
        copy_state(view.adapter, layer, copied[path])
    generator = np.random.default_rng(0)
    for variable in filter(_is_constant, _floats(copy)):
        variable.assign(np.asarray(variable) + generator.uniform(0, _SPREAD, variable.shape))
    return ModelView.of(copy)


def _floats(model: Any) -> list[Any]:
    return [variable for variable in model.weights if "float" in str(variable.dtype)]


def _is_constant(variable: Any) -> bool:
    values = np.asarray(variable)
    return values.size > 0 and bool((values == values.flat[0]).all())
