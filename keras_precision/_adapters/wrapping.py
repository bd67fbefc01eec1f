"""Wrapping: what the PrecisionWrapper of Keras 3 and that of tf_keras have in common."""

import inspect
from typing import Any

from keras_precision._adapters import adapter_of

__all__ = ["Wrapping"]


class Wrapping:
    """A mixin before ``keras.layers.Wrapper`` of Keras 3 and of tf_keras."""

    def __init__(self, layer: Any, precision: str = "float32", *, dtype: Any = None, **kwargs: Any) -> None:
        kwargs["autocast"] = False  # call casts, because it must know the original dtype
        super().__init__(layer, dtype=dtype or precision, **kwargs)  # type: ignore[call-arg]
        adapter = adapter_of(layer)
        policy = adapter.policy_name(self)
        for inner in adapter.walk(layer):
            if not adapter.is_lookup(inner):
                adapter.set_policy(inner, policy)
        self.supports_masking = True
        self._accepted = set(inspect.signature(layer.call).parameters)

    def build(self, *shapes: Any) -> None:
        """Leave building to the inner layer, which is called with all its inputs."""
        self.built = True

    def call(self, inputs: Any, training: Any = None, mask: Any = None, **kwargs: Any) -> Any:
        """Call the inner layer in its precision; floats come back in the dtype of the first float input."""
        optional = {"training": training, "mask": mask}
        kwargs |= {name: value for name, value in optional.items() if value is not None and name in self._accepted}
        outer = next((kind for kind in map(_float_type, self.flat(inputs)) if kind), None)
        narrow = self.mapped(lambda tensor: self.cast_float(tensor, self.compute_dtype), inputs)  # type: ignore[attr-defined]
        outputs = self.layer(narrow, **kwargs)  # type: ignore[attr-defined]
        return outputs if outer is None else self.mapped(lambda tensor: self.cast_float(tensor, outer), outputs)

    def cast_float(self, tensor: Any, dtype: str) -> Any:
        """Cast a float tensor; return anything else unchanged."""
        kind = _float_type(tensor)
        return tensor if kind in (None, dtype) else self.cast(tensor, dtype)

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        """Return the output mask of the inner layer."""
        return self.layer.compute_mask(inputs, mask)  # type: ignore[attr-defined]

    def flat(self, structure: Any) -> list[Any]:
        """Return the tensors of a structure."""
        raise NotImplementedError

    def mapped(self, function: Any, structure: Any) -> Any:
        """Apply a function to all tensors of a structure."""
        raise NotImplementedError

    def cast(self, tensor: Any, dtype: str) -> Any:
        """Cast a tensor."""
        raise NotImplementedError


def _float_type(tensor: Any) -> str | None:
    dtype = getattr(tensor, "dtype", None)
    name = str(getattr(dtype, "name", dtype)).removeprefix("torch.")
    return name if "float" in name else None
